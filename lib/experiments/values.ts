import { bootstrapMean, type Mean } from '../eval/interval.ts';
import type { Each } from '../train/refl/validation.ts';
import type { Observation } from '../train/refl/watch.ts';

/** A measure of the people held out, for readers. */
export interface Value {
  readonly name: string;
  readonly says: string;
  /** Where it should go, `zero` being near 0; left out where that depends. */
  readonly better?: 'higher' | 'lower' | 'zero';
  readonly of: (observation: Observation) => number | undefined;
}

const distance = (name: string, says: string): Value => ({
  ...{ name, says, better: 'lower', of: ({ distances }) => distances[name] },
});
const other = (name: string, says: string): Value => ({
  ...{ name, says, better: 'higher', of: ({ others }) => others?.[name] },
});

/** What tables and curves show, in their order. */
export const values: readonly Value[] = [
  { name: 'independent', says: 'reward by the independent judge', better: 'higher', of: (seen) => seen.independent },
  other('original', 'reward by the judge as it ships'),
  { name: 'reward', says: 'reward by the judge that trains', better: 'higher', of: ({ reward }) => reward },
  {
    name: 'photographs',
    says: 'that judge’s reward of the photographs',
    of: ({ photographs }) => photographs,
  },
  distance('perceptual', 'perceptual distance'),
  distance('identity', 'identity distance'),
  distance('landmarks', 'landmarks moved, % of the eyes’ distance'),
  distance('lpips', 'LPIPS'),
  other('psnr', 'PSNR, dB'),
  { name: 'detail', says: 'fine detail beside the photographs’, octaves', better: 'zero', of: ({ detail }) => detail },
  { name: 'repetition', says: 'repeated texture', better: 'zero', of: ({ repetition }) => repetition },
  { name: 'colour', says: 'colour shift', better: 'zero', of: ({ colour }) => colour },
];

export const measured = (observation: Observation, name: string): number =>
  values.find((value) => value.name === name)!.of(observation)!;

/** A change with its sign, which is as wide as a digit. */
export const signed = (value: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(4)}`;

/** How a value changed between two looks at the same pictures, with the interval that pictures one by one allow. */
export const changeOf = (name: string, before: Each, after: Each): Mean =>
  bootstrapMean(after[name].map((value, i) => value - before[name][i]));

/** A change and its interval, for readers. */
export const told = ({ mean, low, high }: Mean): string => `${signed(mean)} (95%: ${signed(low)} to ${signed(high)})`;
