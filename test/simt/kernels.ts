// The programs that the emulated tests run: one row for each kernel source and the driver that checks it. A new kernel is a
// new row: its cases then run plainly, with shuffled schedules, under AddressSanitizer, under the race detector, and with
// each of its barriers, waits and bounds checks removed.
import type { Program } from './build.ts';

export const kernels: Program[] = [
  {
    name: 'groupNorm',
    kernels: ['cuda/norm/group_norm.cu'],
    driver: 'test/simt/kernels/group_norm.cc',
    equivalent: {
      'perPixel <= kThreads': 'as many vectors as threads make one row either way',
    },
  },
  {
    name: 'gemmMma',
    kernels: ['cuda/gemm/gemm_mma.cu'],
    headers: ['cuda/gemm/launch_mma.h', 'cuda/gemm/core_mma.h', 'cuda/gemm/finish.h'],
    driver: 'test/simt/kernels/gemm_mma.cc',
    equivalent: {
      'first + 8 < output.columns': 'the last eight columns go one by one, to the same values',
      'row > problem.rows(z)': 'a block behind the last row multiplies zeros and writes nothing',
      'each for min(all - begin, each)': 'what lies behind the sum is read as zeros',
      'next <= steps': 'the stage is loaded, with zeros, and not multiplied',
      'true for next < steps': 'the stages are loaded, with zeros, and not multiplied',
      'step <= kStages - 1': 'the loop loads this stage again, with the same values',
      'y <= 0': 'both are 0 at 0',
      'y >= 0': 'both are 0 at 0',
      'kColumns <= 32': 'no tile is 32 columns wide',
      'true for kColumns < 32': 'sums lie elsewhere and meet the same banks, which no emulator sees',
    },
  },
  {
    name: 'gemmSm90',
    kernels: ['cuda/gemm/gemm_sm90.cu'],
    driver: 'test/simt/kernels/gemm_sm90.cc',
  },
  {
    name: 'conv2dMma',
    kernels: ['cuda/conv2d/conv2d_mma.cu'],
    driver: 'test/simt/kernels/conv2d_mma.cc',
  },
  {
    name: 'elementwise',
    kernels: [
      'cuda/elementwise/arithmetic.cu',
      'cuda/elementwise/unary.cu',
      'cuda/elementwise/transcendental.cu',
      'cuda/elementwise/cast.cu',
    ],
    driver: 'test/simt/kernels/elementwise.cc',
    equivalent: {
      'at + V < count': 'the last whole vector goes element by element, to the same result',
      'at + 16 < bytes': 'the last whole vector goes byte by byte, to the same result',
    },
  },
  {
    name: 'chain',
    kernels: ['cuda/chain/chain.cu'],
    driver: 'test/simt/kernels/chain.cc',
    equivalent: {
      'k <= kChainInputs': 'no program counts or names a seventh input',
    },
  },
  {
    name: 'random',
    kernels: ['cuda/random/random.cu'],
    driver: 'test/simt/kernels/random.cc',
    equivalent: {
      'i <= 3': 'a short vector has three elements at the most, and each is guarded',
    },
  },
  {
    name: 'activation',
    kernels: ['cuda/activation/activation.cu'],
    headers: ['cuda/activation/functions.h'],
    driver: 'test/simt/kernels/activation.cc',
    equivalent: {
      'x >= 0.0f': 'both tails are one half at 0',
      'true for sizeof(T) == 2': 'the fast exp and reciprocal are meant for 16 bits; emulated, they are accurate',
    },
  },
  {
    name: 'optim',
    kernels: ['cuda/optim/optim.cu'],
    headers: ['cuda/optim/tables.h'],
    driver: 'test/simt/kernels/optim.cc',
  },
  {
    name: 'gemmF32',
    kernels: ['cuda/gemm/gemm_f32.cu'],
    headers: ['cuda/gemm/core_f32.h', 'cuda/gemm/core_tf32.h'],
    driver: 'test/simt/kernels/gemm_f32.cc',
    equivalent: {
      'count >= 0': 'where nothing is copied, no place is read',
      'true for count > 0': 'where nothing is copied, no place is read',
      'true for kLines % kDown != 0': 'it spares the other test where that is never true',
      'true for kDepth % kDown != 0': 'it spares the other test where that is never true',
      'first <= last': 'a part without products loads a stage that is not multiplied',
      'true for first < last': 'a part without products loads a stage that is not multiplied',
      'step + 1 <= last': 'a stage is loaded that is not multiplied',
      'true for step + 1 < last': 'a stage is loaded that is not multiplied',
      'V >= 1': 'a vector of one is stored as an element is',
      'true for V > 1': 'a vector of one is stored as an element is',
      'column + V < columns': 'the last vector goes element by element, to the same values',
      'target.epilogue->steps >= 0': 'sums pass through shared memory, to the same values',
      'true for target.epilogue->steps > 0': 'sums pass through shared memory, to the same values',
    },
  },
  {
    name: 'conv2dF32',
    kernels: ['cuda/conv2d/conv2d_f32.cu', 'cuda/conv2d/pack.cu', 'cuda/layout/transpose.cu'],
    driver: 'test/simt/kernels/conv2d_f32.cc',
  },
  {
    name: 'normGrad',
    kernels: ['cuda/norm/column_sums.cu', 'cuda/norm/group_norm_grad.cu', 'cuda/norm/layer_norm.cu'],
    driver: 'test/simt/kernels/norm_grad.cc',
  },
  {
    name: 'reduce',
    kernels: ['cuda/reduce/reduce.cu'],
    driver: 'test/simt/kernels/reduce.cc',
    equivalent: {
      'b.at <= a.at': 'two values of one place are those before every element, and alike',
    },
  },
  {
    name: 'softmax',
    kernels: ['cuda/softmax/softmax.cu'],
    driver: 'test/simt/kernels/softmax.cc',
  },
  {
    name: 'layout',
    kernels: ['cuda/layout/gather.cu', 'cuda/layout/transpose.cu', 'cuda/layout/copy.cu', 'cuda/layout/pad_grad.cu'],
    driver: 'test/simt/kernels/layout.cc',
  },
  {
    name: 'pool',
    kernels: ['cuda/pool/pool.cu'],
    driver: 'test/simt/kernels/pool.cc',
  },
  {
    name: 'embedding',
    kernels: ['cuda/embedding/embedding.cu'],
    driver: 'test/simt/kernels/embedding.cc',
  },
  {
    name: 'resample',
    kernels: ['cuda/resample/resample.cu'],
    driver: 'test/simt/kernels/resample.cc',
    equivalent: {
      'a % b <= 0': 'where the quotient is whole, the filter is 0 at both ends',
      'x <= 1.0f': 'both polynomials are 0 at 1',
      'x <= 2.0f': 'the polynomial is 0 at 2',
      'k <= start + taps': 'the filter does not reach that pixel',
    },
  },
  {
    name: 'reward',
    kernels: ['cuda/reward/head.cu', 'cuda/reward/direction_distance.cu', 'cuda/reward/mean_error.cu'],
    driver: 'test/simt/kernels/reward.cc',
    equivalent: {
      'from <= end': 'a round more, in which no lane has a position',
    },
  },
  {
    name: 'lowPass',
    kernels: ['cuda/reward/low_pass.cu'],
    headers: ['cuda/reward/mean.h'],
    driver: 'test/simt/kernels/low_pass.cc',
  },
  {
    name: 'attention',
    kernels: [
      'cuda/attention/attention.cu',
      'cuda/attention/attention_mma.cu',
      'cuda/attention/attention_grad.cu',
      'cuda/attention/attention_grad_mma.cu',
      'cuda/attention/bias_grad.cu',
    ],
    headers: ['cuda/attention/core.h', 'cuda/attention/core_mma.h', 'cuda/attention/core_grad.h'],
    driver: 'test/simt/kernels/attention.cc',
    equivalent: {
      'true for kChunks == 1': 'the first chunk is copied once more, before it is needed',
      'kChunks >= 1': 'the same rows are copied once more',
      'true for kChunks > 1': 'the same rows are copied once more',
      'chunk <= Tile::kChunks': 'a chunk without features adds nothing',
      'begin <= end': 'a tile of which nothing is seen',
      'shape.keys for min(shape.keys, first + Tile::kOwn)': 'what lies behind the diagonal is masked',
      'first + Tile::kOwn for min(shape.keys, first + Tile::kOwn)': 'keys that are not there are masked',
      'length for min(length, first + Tile::kOwn)': 'what lies behind the diagonal is masked',
      'first + Tile::kOwn for min(length, first + Tile::kOwn)': 'rows that are not there are masked',
      'score <= kLowest': 'equal numbers',
      'Tile::kWidth for min(features, Tile::kWidth)': 'features that a head lacks are zeros',
      'Tile::kOther for min(count, Tile::kOther)': 'rows that are not there weigh nothing',
      'feature <= head.size': 'nothing is copied from there',
      'true for feature < head.size': 'nothing is copied from there',
      'begin + Tile::kOther <= end': 'a tile is fetched that is not multiplied',
      'true for begin + Tile::kOther < end': 'a tile is fetched that is not multiplied',
      'begin + Tile::kOther >= (shape.causal ? first : shape.keys)': 'the mask changes nothing there',
      'true for begin + Tile::kOther > (shape.causal ? first : shape.keys)': 'the mask changes nothing there',
      'group <= Tile::kGroups': 'the loop ends there at the latest',
      'group * 32 > size': 'features that a head lacks are zeros',
    },
  },
];

/** The wrappers themselves. */
export const instructions: Program = {
  name: 'instructions',
  kernels: ['test/simt/kernels/instructions.cu'],
  driver: 'test/simt/kernels/instructions.cc',
};

/** Kernels with planted faults. */
export const faults: Program = {
  name: 'faults',
  kernels: ['test/simt/kernels/faults.cu'],
  driver: 'test/simt/kernels/faults.cc',
};

/** sm_90a's instructions, right and with planted faults. */
export const hopper: Program = {
  name: 'hopper',
  kernels: ['test/simt/kernels/hopper.cu'],
  driver: 'test/simt/kernels/hopper.cc',
};
