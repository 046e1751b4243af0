import { cast } from '../../lib/graph/ops/elementwise.ts';
import { reshape, slice } from '../../lib/graph/ops/layout.ts';
import { fidPreprocess } from '../../lib/metrics/fid.ts';
import { degrees, greyFaces, identityCosine } from '../../lib/metrics/identity.ts';
import { ResNetFace } from '../../lib/models/arcface.ts';
import { InceptionV3 } from '../../lib/models/inception.ts';
import type { FullTrace, Limit } from './full.ts';
import { toNchw } from './module.ts';
import { unit } from './preprocess.ts';

/** Limits of ../shared/golden/full/README.md. */
const own = (key: string): string => key;

export const arcfaceFull: FullTrace = (golden) => {
  const module = new ResNetFace();
  const grey = golden.feed('in.gray_u8');
  const embedding = module.forward(greyFaces(reshape(cast(grey, 'f32'), [...grey.shape, 1])));
  const [first, second] = [0, 1].map((row) => slice(embedding, [row, 0], [1, embedding.shape[1]]));
  return {
    parts: [{ module, manifest: 'arcface_resnet_face18', key: own }],
    feeds: { 'in.gray_u8': grey },
    outputs: { embedding, cos: identityCosine(first, second) },
    derive: ({ cos }) => ({ angle_deg: [degrees(cos[0])] }),
    limit: (output): Limit => {
      if (output === 'cos') return { error: 1e-6, absolute: true };
      return output === 'angle_deg' ? { error: 1e-3, absolute: true } : { error: 2e-5 };
    },
  };
};

export const inceptionFull: FullTrace = (golden) => {
  const module = new InceptionV3();
  const image = golden.feed('in.image_u8');
  const { block0, block1, block2, pool } = module.forward(fidPreprocess(unit(image)));
  return {
    parts: [{ module, manifest: 'fid_inception_v3', key: own }],
    feeds: { 'in.image_u8': image },
    outputs: {
      block0: toNchw(block0),
      block1: toNchw(block1),
      block2: toNchw(block2),
      pool: reshape(pool, [...pool.shape, 1, 1]),
    },
    limit: (output) => ({ error: output === 'pool' ? 2e-5 : 5e-5 }),
  };
};
