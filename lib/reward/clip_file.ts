import { ReflError } from '../errors.ts';
import { input } from '../graph/tensor.ts';
import { CLIP, type CLIPConfig, vitH14 } from '../models/clip.ts';
import type { WeightsFile } from '../weights/format.ts';

/** Builds the model that a file's metadata describes, ViT-H/14 where it describes none; it may come from anyone. */
export function clipOf({ path, metadata, entries }: WeightsFile): { clip: CLIP; config: CLIPConfig } {
  if (metadata.config === undefined) return { clip: new CLIP(vitH14), config: vitH14 };
  try {
    const config = JSON.parse(metadata.config) as CLIPConfig;
    // Every block holds several tensors.
    if (!(config.vision_cfg.layers + config.text_cfg.layers <= entries.size))
      throw new Error('it has more layers than the file');
    const clip = new CLIP(config);
    const [height, width] = clip.visual.imageSize;
    if (height !== width) throw new Error(`it takes images of ${height}x${width}, no squares`);
    clip.visual.forward(input('images', [1, height, width, 3]));
    clip.pooled(input('ids', [1, config.text_cfg.context_length], 'i32'));
    return { clip, config };
  } catch (cause) {
    const why = (cause as Error).message;
    throw new ReflError('ERR_WEIGHTS', `${path}: the metadata key config describes no CLIP: ${why}`, { cause });
  }
}
