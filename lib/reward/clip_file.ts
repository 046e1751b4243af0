import { ReflError } from '../errors.ts';
import type { DType } from '../graph/dtype.ts';
import { input } from '../graph/tensor.ts';
import { CLIP, type CLIPConfig, vitH14 } from '../models/clip.ts';
import { partOf } from '../models/parts.ts';
import { withDType } from '../nn/module.ts';
import type { WeightsFile } from '../weights/format.ts';
import { openWeights } from '../weights/open.ts';

interface ClipFile {
  readonly clip: CLIP;
  readonly config: CLIPConfig;
  /** Its tensors under open_clip's names, whatever they are called there. */
  readonly file: WeightsFile;
}

/**
 * Opens a file, or a folder of transformers, that holds a CLIP. Throws ERR_FILE and ERR_WEIGHTS, which says what it holds instead.
 *
 * @param dtype of the model's parameters
 */
export async function openClip(path: string, dtype: DType = 'f32'): Promise<ClipFile> {
  const file = partOf(await openWeights(path), 'clip');
  return { ...clipOf(file, dtype), file };
}

/** Builds the model that a file's metadata describes, ViT-H/14 where it describes none; it may come from anyone. */
function clipOf({ path, metadata, entries }: WeightsFile, dtype: DType): Omit<ClipFile, 'file'> {
  const made = (config: CLIPConfig): CLIP => withDType(dtype, () => new CLIP(config));
  if (metadata.config === undefined) return { clip: made(vitH14), config: vitH14 };
  try {
    const config = JSON.parse(metadata.config) as CLIPConfig;
    // Every block holds several tensors.
    if (!(config.vision_cfg.layers + config.text_cfg.layers <= entries.size))
      throw new Error('it has more layers than the file');
    const clip = made(config);
    const [height, width] = clip.visual.imageSize;
    if (height !== width) throw new Error(`it takes images of ${height}x${width}, no squares`);
    clip.visual.forward(input('images', [1, height, width, 3], dtype));
    clip.pooled(input('ids', [1, config.text_cfg.context_length], 'i32'), { dtype });
    return { clip, config };
  } catch (cause) {
    const why = (cause as Error).message;
    throw new ReflError('ERR_WEIGHTS', `${path}: the metadata key config describes no CLIP: ${why}`, { cause });
  }
}
