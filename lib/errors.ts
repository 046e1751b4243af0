/** Stable codes of every error this package throws; each names what failed, where, and what to do. */
export type ErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_GRAPH'
  | 'ERR_NO_GRADIENT'
  | 'ERR_DEVICE'
  | 'ERR_NATIVE_LOAD'
  | 'ERR_PROGRAM'
  | 'ERR_FEED'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_DISPOSED'
  | 'ERR_ABORTED'
  | 'ERR_WEIGHTS'
  | 'ERR_CHECKPOINT'
  | 'ERR_DIVERGED'
  | 'ERR_ALARM'
  | 'ERR_IMAGE'
  | 'ERR_FILE'
  | 'ERR_DATA'
  | 'ERR_ENDPOINT'
  | 'ERR_OPTION';

/** Base of every error thrown here. `code` is stable; `message` says what, where and what to do. */
export class ReflError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ReflError';
    this.code = code;
  }
}
