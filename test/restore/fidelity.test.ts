// The knob from detail to identity: a face's distance to the picture falls as it rises. Networks are random, so that what they
// invent has nothing to do with the face, but for the autoencoder, whose weights make it pass pictures on as they are.
import { createRequire } from 'node:module';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FaceRecogniser } from '../../lib/faces/recogniser.ts';
import type { Rgb } from '../../lib/image/picture.ts';
import { ControlLDM, type DiffBIRConfig } from '../../lib/models/diffbir.ts';
import { OSEDiff } from '../../lib/models/osediff.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import type { Module } from '../../lib/nn/module.ts';
import { DiffBIRModel, diffbirVersions } from '../../lib/restore/diffbir.ts';
import type { ImageModel } from '../../lib/restore/image_model.ts';
import { OSEDiffModel } from '../../lib/restore/osediff.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import type { WeightsFile } from '../../lib/weights/format.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { tensorsOf, tinyDiffBIR } from './latent_support.ts';
import { temporaryFolder } from './support.ts';

const folder = temporaryFolder();
const config: DiffBIRConfig = {
  ...tinyDiffBIR,
  scale: 1,
  vae: {
    embed_dim: 4,
    ddconfig: { in_channels: 3, out_ch: 3, ch: 8, ch_mult: [1], num_res_blocks: 1, z_channels: 4, num_groups: 1 },
  },
};

/** What stands beside the colours in every norm, so that its statistics hardly depend on them. */
const ballast = 1000;

/**
 * Weights by which a part of the autoencoder gives back what it is given: blocks add nothing; two channels hold opposite constants
 * and so fix the norm's deviation, which a SiLU far from zero passes on, and the last convolution undoes both.
 */
function passing(key: string, { shape }: Source): Float32Array {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  /** Writes the middle of a kernel from one channel to another. */
  const link = (output: number, input: number, weight: number): void => {
    const [, inputs, side = 1] = shape;
    values[(output * inputs + input) * side * side + Math.floor((side * side) / 2)] = weight;
  };
  const deviation = ballast * Math.sqrt(2 / 8);
  const far = 20;
  // Colours and their opposites: the mean is 0.
  if (/conv_in\.weight$/.test(key)) for (let c = 0; c < 6; c++) link(c, c % 3, c < 3 ? 1 : -1);
  if (/conv_in\.bias$/.test(key)) values.set([ballast, -ballast], 6);
  if (/norm_out\.weight$/.test(key)) values.fill(deviation);
  if (/norm_out\.bias$/.test(key)) values.fill(far);
  if (/conv_out\.weight$/.test(key)) for (let c = 0; c < 3; c++) link(c, c, 1);
  if (/conv_out\.bias$/.test(key)) values.fill(-far, 0, 3);
  // Log-variances of -30: the encoder is sure.
  if (/encoder\.conv_out\.bias$/.test(key)) values.fill(-30, 4);
  if (/^(post_)?quant_conv\.weight$/.test(key)) for (let c = 0; c < shape[0]; c++) link(c, c, 1);
  return values;
}

async function fileOf(name: string, module: Module, values?: typeof passing): Promise<WeightsFile> {
  const path = `${folder}/${name}.safetensors`;
  const random = [...tensorsOf(module, name.length)];
  const tensors = random.map(([key, source]) => [
    key,
    values ? { ...source, data: () => values(key, source) } : source,
  ]);
  await writeSafetensors(path, new Map(tensors as [string, Source][]));
  return openWeights(path);
}

const side = 96;
const portrait = createRequire(import.meta.url).resolve('@vladmandic/face-api/demo/sample1.jpg');

test('the distance of a face to the picture falls as fidelity rises', async () => {
  using device = await openDevice('cpu');
  using recogniser = await FaceRecogniser.load(device);
  const { data } = await sharp(portrait)
    .resize(side, side, { fit: 'cover', position: 'attention' })
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const face: Rgb = { width: side, height: side, data };
  const chip = async (image: Rgb): Promise<Float32Array> => {
    const raw = { width: side, height: side, channels: 3 } as const;
    const pixels = await sharp(image.data, { raw }).resize(150, 150).raw().toBuffer();
    return recogniser.recognise({ width: 150, height: 150, data: pixels });
  };
  const distances = async (
    model: ImageModel,
    to: (own: Rgb) => Rgb,
    fidelities: readonly number[],
    more: object,
  ): Promise<number[]> => {
    const found: number[] = [];
    const shown: Float32Array[] = [];
    for (const fidelity of fidelities) {
      const [restored] = await model.restore([face], { batch: 1, seed: 1, fidelity, ...more });
      if (!shown.length) shown.push(await chip(to(restored)));
      const own = await chip(restored);
      found.push(Math.hypot(...own.map((v, i) => v - shown[0][i])));
    }
    model.dispose();
    return found;
  };

  const [ldm, ose] = [new ControlLDM(config), new OSEDiff(config, { unet: 2, vae: 2 })];
  const files = {
    unet: await fileOf('unet', ldm.unet),
    vae: await fileOf('vae', ldm.vae, passing),
    text: await fileOf('text', ldm.clip.model),
  };
  const adapters = {
    unet: await fileOf('adapters of the unet', ose.unet),
    vae: await fileOf(
      'adapters of the vae',
      ose.vae,
      (_, { shape }) => new Float32Array(shape.reduce((a, b) => a * b, 1)),
    ),
    ranks: { unet: 2, vae: 2 },
  };
  const kept = (file: WeightsFile): WeightsFile => ({
    ...file,
    entries: new Map([...file.entries].filter(([key]) => key.includes('.lora_'))),
  });
  const osediff = await OSEDiffModel.load(
    { name: 'osediff', size: side, stages: new Stages(device) },
    { config, mendsColours: false },
    files,
    { ...adapters, unet: kept(adapters.unet), vae: kept(adapters.vae) },
  );
  // A random network's estimate of the clean latent is fifteen times too large: little of it is much.
  const towardsInput = await distances(osediff, () => face, [1, 0.997, 0.99, 0.97], {});
  assert.ok(towardsInput[0] < 0.1, `at 1 it is the picture: ${towardsInput}`);
  assert.equal(
    towardsInput,
    [...towardsInput].sort((a, b) => a - b),
  );
  assert.ok(towardsInput[3] > towardsInput[0] + 0.2, `${towardsInput}`);

  const diffbir = await DiffBIRModel.load(
    { name: 'diffbir', size: side, stages: new Stages(device) },
    diffbirVersions.v1,
    {
      ...files,
      controlnet: await fileOf('controlnet', ldm.controlnet),
      stage1: await fileOf('stage1', new SwinIR(config.stage1)),
    },
    config,
  );
  // The first stage is random too: at 1 the picture is what it made.
  const towardsStage1 = await distances(diffbir, (first) => first, [1, 0.95, 0.9, 0.8], { steps: 3 });
  assert.equal(
    towardsStage1,
    [...towardsStage1].sort((a, b) => a - b),
  );
  assert.ok(towardsStage1[3] > towardsStage1[0] + 0.1, `${towardsStage1}`);
});

test.run();
