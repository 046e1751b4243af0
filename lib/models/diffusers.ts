// Names of diffusers beside the original ones. Both are trees of the same modules, so a pair of paths maps every key below
// them: weights, biases and adapters.

/** A module's path under its original name and under that of diffusers. */
type Pair = readonly [original: string, diffusers: string];

/** How deep a network is, which its names show. */
export interface Layout {
  readonly levels: number;
  /** Residual blocks of a level on the way down; there is one more on the way up. */
  readonly blocks: number;
  /** Whether each level has attention, from the largest image to the smallest. */
  readonly attention: readonly boolean[];
}

/** The layout of a UNet or an autoencoder's encoder whose blocks are below `down_blocks`, as diffusers names them. */
export function layoutOf(keys: Iterable<string>): Layout {
  const attention: boolean[] = [];
  let blocks = 0;
  for (const key of keys) {
    const [, level, kind, block] = /(?:^|\.)down_blocks\.(\d{1,2})\.(resnets|attentions)\.(\d{1,2})\./.exec(key) ?? [];
    if (level === undefined) continue;
    attention[Number(level)] ||= kind === 'attentions';
    blocks = Math.max(blocks, Number(block) + 1);
  }
  return { levels: attention.length, blocks, attention: Array.from(attention, Boolean) };
}

const inside = (pairs: readonly Pair[], [original, diffusers]: Pair): Pair[] =>
  pairs.map(([a, b]) => [`${original}.${a}`, `${diffusers}.${b}`]);

const unetResBlock: readonly Pair[] = [
  ['in_layers.0', 'norm1'],
  ['in_layers.2', 'conv1'],
  ['emb_layers.1', 'time_emb_proj'],
  ['out_layers.0', 'norm2'],
  ['out_layers.3', 'conv2'],
  ['skip_connection', 'conv_shortcut'],
];

/** Modules of a UNet: residual blocks part by part, transformers whole, since they have the same names inside. */
export function unetModules({ levels, blocks, attention }: Layout): Pair[] {
  const pairs: Pair[] = [
    ['time_embed.0', 'time_embedding.linear_1'],
    ['time_embed.2', 'time_embedding.linear_2'],
    ['input_blocks.0.0', 'conv_in'],
    ['out.0', 'conv_norm_out'],
    ['out.2', 'conv_out'],
    ...inside(unetResBlock, ['middle_block.0', 'mid_block.resnets.0']),
    ['middle_block.1', 'mid_block.attentions.0'],
    ...inside(unetResBlock, ['middle_block.2', 'mid_block.resnets.1']),
  ];
  const stage = (original: string, diffusers: string, block: number, attends: boolean): void => {
    pairs.push(...inside(unetResBlock, [`${original}.0`, `${diffusers}.resnets.${block}`]));
    if (attends) pairs.push([`${original}.1`, `${diffusers}.attentions.${block}`]);
  };
  for (let level = 0; level < levels; level++) {
    const first = 1 + level * (blocks + 1);
    for (let i = 0; i < blocks; i++) stage(`input_blocks.${first + i}`, `down_blocks.${level}`, i, attention[level]);
    if (level < levels - 1) {
      pairs.push([`input_blocks.${first + blocks}.0.op`, `down_blocks.${level}.downsamplers.0.conv`]);
    }
    // Diffusers counts the levels on the way up as they come.
    const up = `up_blocks.${levels - 1 - level}`;
    const last = (levels - level) * (blocks + 1) - 1;
    for (let i = 0; i <= blocks; i++) stage(`output_blocks.${last - blocks + i}`, up, i, attention[level]);
    if (level > 0) pairs.push([`output_blocks.${last}.${attention[level] ? 2 : 1}.conv`, `${up}.upsamplers.0.conv`]);
  }
  return pairs;
}

const vaeResBlock: readonly Pair[] = [
  ['norm1', 'norm1'],
  ['conv1', 'conv1'],
  ['norm2', 'norm2'],
  ['conv2', 'conv2'],
  ['nin_shortcut', 'conv_shortcut'],
];

const vaeAttention: readonly Pair[] = [
  ['norm', 'group_norm'],
  ['q', 'to_q'],
  ['k', 'to_k'],
  ['v', 'to_v'],
  ['proj_out', 'to_out.0'],
];

/** The names of an autoencoder's attention before diffusers 0.17, by the later ones. */
const olderAttention: Readonly<Record<string, string>> = {
  query: 'to_q',
  key: 'to_k',
  value: 'to_v',
  proj_attn: 'to_out.0',
};

/** Modules of an autoencoder. */
export function vaeModules({ levels, blocks }: Pick<Layout, 'levels' | 'blocks'>): Pair[] {
  const pairs: Pair[] = [
    ['quant_conv', 'quant_conv'],
    ['post_quant_conv', 'post_quant_conv'],
  ];
  for (const half of ['encoder', 'decoder']) {
    pairs.push([`${half}.conv_in`, `${half}.conv_in`]);
    pairs.push([`${half}.norm_out`, `${half}.conv_norm_out`]);
    pairs.push([`${half}.conv_out`, `${half}.conv_out`]);
    pairs.push(...inside(vaeResBlock, [`${half}.mid.block_1`, `${half}.mid_block.resnets.0`]));
    pairs.push(...inside(vaeAttention, [`${half}.mid.attn_1`, `${half}.mid_block.attentions.0`]));
    pairs.push(...inside(vaeResBlock, [`${half}.mid.block_2`, `${half}.mid_block.resnets.1`]));
  }
  for (let level = 0; level < levels; level++) {
    const down: Pair = [`encoder.down.${level}`, `encoder.down_blocks.${level}`];
    const up: Pair = [`decoder.up.${level}`, `decoder.up_blocks.${levels - 1 - level}`];
    for (let i = 0; i <= blocks; i++) {
      const block: Pair[] = inside(vaeResBlock, [`block.${i}`, `resnets.${i}`]);
      if (i < blocks) pairs.push(...inside(block, down));
      pairs.push(...inside(block, up));
    }
    if (level < levels - 1) pairs.push(...inside([['downsample.conv', 'downsamplers.0.conv']], down));
    if (level > 0) pairs.push(...inside([['upsample.conv', 'upsamplers.0.conv']], up));
  }
  return pairs;
}

/** A function from keys or module paths under original names to those of diffusers; undefined for what no pair covers. */
export const toDiffusers = (pairs: readonly Pair[]): ((key: string) => string | undefined) => mapped(new Map(pairs));

/** The way back, from the names of any version of diffusers. */
export function fromDiffusers(pairs: readonly Pair[]): (key: string) => string | undefined {
  const map = mapped(new Map(pairs.map(([original, diffusers]) => [diffusers, original])));
  const older = /(_block\.attentions\.0\.)(query|key|value|proj_attn)\b/;
  return (key) => map(key.replace(older, (_, path, name) => path + olderAttention[name]));
}

/** Maps the longest path in `modules` that a key begins with, and keeps the rest. */
function mapped(modules: ReadonlyMap<string, string>): (key: string) => string | undefined {
  return (key) => {
    for (let end = key.length; end > 0; end = key.lastIndexOf('.', end - 1)) {
      const to = modules.get(key.slice(0, end));
      if (to !== undefined) return to + key.slice(end);
    }
    return undefined;
  };
}
