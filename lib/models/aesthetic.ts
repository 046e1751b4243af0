import type { Tensor } from '../graph/tensor.ts';
import { Linear } from '../nn/layers.ts';
import { Layer } from '../nn/module.ts';
import type { CLIPConfig } from './clip.ts';

/** The image tower of OpenAI's CLIP ViT-L/14. */
export const vitL14Visual: Pick<CLIPConfig, 'vision_cfg' | 'embed_dim' | 'quick_gelu'> = {
  embed_dim: 768,
  vision_cfg: { image_size: 224, patch_size: 14, width: 1024, layers: 24, head_width: 64 },
  quick_gelu: true,
};

/** LAION's aesthetic predictor, of CLIP ViT-L/14 features: five linear layers with nothing between them but, in training, dropout. */
export class AestheticPredictor extends Layer {
  // The places between are those of dropout.
  readonly layers: Record<0 | 2 | 4 | 6 | 7, Linear> = {
    0: new Linear(768, 1024),
    2: new Linear(1024, 128),
    4: new Linear(128, 64),
    6: new Linear(64, 16),
    7: new Linear(16, 1),
  };

  /** @param features [N, 768] of length 1; @returns [N, 1], about 1 to 10 */
  forward(features: Tensor): Tensor {
    return this.trace(() => Object.values(this.layers).reduce((x, layer) => layer.forward(x), features));
  }
}
