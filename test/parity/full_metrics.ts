import type { TypedArray } from '../../lib/graph/dtype.ts';
import { add, affine, cast, exp, full, square, sub } from '../../lib/graph/ops/elementwise.ts';
import { concat, pad, reshape, slice, split, transpose } from '../../lib/graph/ops/layout.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { cosineSimilarity } from '../../lib/graph/ops/reward.ts';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { aestheticOf, clipPreprocess } from '../../lib/metrics/aesthetic.ts';
import { pairChance } from '../../lib/metrics/clipiqa.ts';
import { fidPreprocess } from '../../lib/metrics/fid.ts';
import { degrees, greyFaces } from '../../lib/metrics/identity.ts';
import { heatmaps, landmarkPreprocess, landmarks, peaks } from '../../lib/metrics/landmarks.ts';
import { maniqaCrops } from '../../lib/metrics/maniqa.ts';
import { multiscalePatches } from '../../lib/metrics/musiq.ts';
import { AestheticPredictor, vitL14Visual } from '../../lib/models/aesthetic.ts';
import { ResNetFace } from '../../lib/models/arcface.ts';
import { VisionTransformer } from '../../lib/models/clip.ts';
import { ClipResNet, type ClipResNetConfig } from '../../lib/models/clip_resnet.ts';
import { coordinates, FAN } from '../../lib/models/fan.ts';
import { InceptionV3 } from '../../lib/models/inception.ts';
import { MANIQA } from '../../lib/models/maniqa.ts';
import { MUSIQ } from '../../lib/models/musiq.ts';
import { normalizeColours } from '../../lib/reward/preprocess.ts';
import type { FullTrace, Limit } from './full.ts';
import { toNchw } from './module.ts';
import { unit } from './preprocess.ts';

// Limits are those of ../shared/golden/full/README.md.
const own = (key: string): string => key;

export const aestheticFull: FullTrace = (golden) => {
  const networks = { visual: new VisionTransformer(vitL14Visual), predictor: new AestheticPredictor() };
  const [image, embedding] = [golden.feed('in.image_u8'), golden.feed('in.embedding')];
  const feature = networks.visual.forward(clipPreprocess(unit(image)));
  const column = (x: Tensor): Tensor => reshape(x, [-1, 1]);
  return {
    parts: [
      { module: networks.visual, manifest: 'openai_clip_vit_l_14_visual', key: (key) => `visual.${key}` },
      { module: networks.predictor, manifest: 'laion_aesthetic_mlp', key: own },
    ],
    feeds: { 'in.image_u8': image, 'in.embedding': embedding },
    outputs: {
      image_feature: feature,
      score: column(aestheticOf(networks, feature)),
      score_embedding: column(aestheticOf(networks, embedding)),
      score_raw: networks.predictor.forward(embedding),
    },
    limit: () => ({ error: 2e-5 }),
  };
};

export const clipiqaFull: FullTrace = (golden) => {
  const module = new ClipResNet(golden.json<ClipResNetConfig>('config'));
  const [image, tokens] = [golden.feed('in.image_u8'), golden.feed('in.tokens')];
  const texts = module.pooled(tokens);
  const map = module.visual.map(normalizeColours(unit(image)));
  const feature = module.visual.attnpool.forward(map);
  const { score, logits } = pairChance(module, feature, texts);
  return {
    parts: [{ module, manifest: 'openai_clip_rn50', key: own }],
    feeds: { 'in.image_u8': image, 'in.tokens': tokens },
    outputs: {
      score: reshape(score, [-1, 1]),
      image_feature: feature,
      text_feature: texts,
      logits,
      layer4: toNchw(map),
    },
    limit: (output): Limit => (output === 'score' ? { error: 1e-6, absolute: true } : { error: 2e-5 }),
  };
};

export const arcfaceFull: FullTrace = (golden) => {
  const module = new ResNetFace();
  const grey = golden.feed('in.gray_u8');
  const embedding = module.forward(greyFaces(reshape(cast(grey, 'f32'), [...grey.shape, 1])));
  const [first, second] = [0, 1].map((row) => slice(embedding, [row, 0], [1, embedding.shape[1]]));
  return {
    parts: [{ module, manifest: 'arcface_resnet_face18', key: own }],
    feeds: { 'in.gray_u8': grey },
    outputs: { embedding, cos: cosineSimilarity(first, second) },
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

/** By how much the largest value of each map [P, 64, 64] exceeds the second. */
function margins(maps: TypedArray): number[] {
  const pixels = 64 * 64;
  return Array.from({ length: maps.length / pixels }, (_, p) => {
    const [first, second] = maps
      .slice(p * pixels, (p + 1) * pixels)
      .sort()
      .slice(-2)
      .reverse();
    return first - second;
  });
}

/** Round spots at the given centres [P, 2] (x, y), [1, 64, 64, P]. */
function spots(centres: Tensor): Tensor {
  const [p] = centres.shape;
  const places = constant(
    Float32Array.from({ length: 64 }, (_, i) => i),
    [64],
    'f32',
  );
  const [x, y] = split(centres, 2, 1).map((centre) => reshape(centre, [p]));
  const across = square(sub(reshape(places, [1, 64, 1]), x));
  const down = square(sub(reshape(places, [64, 1, 1]), y));
  return reshape(exp(affine(add(across, down), -1 / 4.5)), [1, 64, 64, p]);
}

export const fanFull: FullTrace = (golden) => {
  const module = new FAN();
  const [bgr, centres] = [golden.feed('in.image_bgr_u8'), golden.feed('in.centres')];
  const [blue, green, red] = split(unit(reshape(bgr, [1, ...bgr.shape])), 3, 3);
  const maps = module.forward(landmarkPreprocess(concat([red, green, blue], 3)));
  const found = heatmaps(maps);
  const points = (of: Tensor): Tensor => reshape(landmarks(of, [256, 256]), [98, 2]);
  return {
    parts: [{ module, manifest: 'awing_fan_4hg_98', key: own }],
    feeds: { 'in.image_bgr_u8': bgr, 'in.centres': centres },
    outputs: {
      coord: toNchw(coordinates(256)),
      heatmaps: toNchw(found),
      ...Object.fromEntries(maps.map((map, i) => [`stack${i}`, toNchw(map)])),
      argmax: reshape(peaks(found), [98]),
      points: points(found),
      points_synth: points(spots(centres)),
    },
    derive: ({ heatmaps: values }) => ({ margin: margins(values) }),
    limit: (output): Limit => {
      if (output === 'argmax') return { error: 0, absolute: true };
      // Points lie on a grid of one pixel: equal, as far as float32 tells.
      if (output.startsWith('points')) return { error: 1e-6 };
      return { error: output === 'margin' ? 1e-4 : 1e-5 };
    },
  };
};

/** What the port fills up to for each of the first scales, in patches. */
const filled = [49, 144];

/** Patches of each scale of a picture, the last as it is. */
const countsOf = (h: number, w: number): number[] =>
  [224, 384, Math.max(h, w)].map((side) => {
    const [rows, columns] = [h, w].map((size) => Math.ceil(Math.round((size * side) / Math.max(h, w)) / 32));
    return rows * columns;
  });

/** Rows [N, L, C] of each scale, with zeros up to the port's numbers. */
function fill(x: Tensor, counts: number[]): Tensor {
  const [n, , c] = x.shape;
  let at = 0;
  const parts = counts.map((count, scale) => {
    const part = slice(x, [0, at, 0], [n, count, c]);
    at += count;
    return pad(part, [0, 0, 0], [0, (filled[scale] ?? count) - count, 0]);
  });
  return concat(parts, 1);
}

export const musiqFull: FullTrace = (golden) => {
  const module = new MUSIQ();
  const image = golden.feed('in.image_u8');
  const picture = multiscalePatches(unit(image));
  const [n, length] = picture.patches.shape;
  const counts = countsOf(image.shape[1], image.shape[2]);
  const flat = reshape(transpose(picture.patches, [0, 1, 4, 2, 3]), [n, length, 3 * 32 * 32]);
  const patches = fill(flat, counts);
  const whole = (x: Tensor): Tensor => {
    const row = fill(reshape(cast(x, 'f32'), [1, length, 1]), counts);
    return cast(reshape(row, [1, row.shape[1]]), 'i32');
  };
  const channelsLast = transpose(reshape(patches, [n, -1, 3, 32, 32]), [0, 1, 3, 4, 2]);
  return {
    parts: [{ module, manifest: 'musiq_koniq', key: own }],
    feeds: { 'in.image_u8': image },
    outputs: {
      patches,
      positions: whole(picture.positions),
      scales: whole(picture.scales),
      mask: whole(full([length], 1, 'f32')),
      embedding: module.embed(channelsLast),
      cls: module.feature(picture),
      score: reshape(module.forward(picture), [n, 1]),
    },
    limit: (output): Limit => {
      if (/^(positions|scales|mask)$/.test(output)) return { error: 0, absolute: true };
      return { error: output === 'score' ? 2e-5 : 1e-4 };
    },
  };
};

export const maniqaFull: FullTrace = (golden) => {
  const { scale } = golden.json<{ scale: number }>('config');
  const module = new MANIQA({ scale });
  const image = golden.feed('in.image_u8');
  const crops = maniqaCrops(unit(image), golden.json<Outputs>('outputs').crop_sum.shape[0]);
  const { vit, conv1, swin1, swin2 } = module.outputs(crops);
  return {
    parts: [{ module, manifest: 'maniqa', key: own }],
    feeds: { 'in.image_u8': image },
    outputs: {
      score: reshape(module.forward(crops), [1, 1]),
      crop_sum: sum(crops, [1, 2, 3]),
      vit9: vit,
      conv1: toNchw(conv1),
      swin1: toNchw(swin1),
      swin2: toNchw(swin2),
    },
    limit: (output): Limit => {
      if (output === 'score') return { error: 1e-6, absolute: true };
      return { error: output === 'crop_sum' ? 1e-4 : 2e-5 };
    },
  };
};

type Outputs = Record<string, { shape: number[] }>;
