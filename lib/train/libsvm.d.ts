/** The part of libsvm-js that is used; the package has no types of its own. */
declare module 'libsvm-js/asm.js' {
  export default class SVM {
    static readonly SVM_TYPES: { readonly C_SVC: string };
    static readonly KERNEL_TYPES: { readonly RBF: string };
    constructor(options: {
      type: string;
      kernel: string;
      cost: number;
      gamma: number;
      tolerance: number;
      quiet: boolean;
    });
    train(rows: readonly (readonly number[])[], labels: readonly number[]): void;
    getSVIndices(): number[];
    serializeModel(): string;
    free(): void;
  }
}
