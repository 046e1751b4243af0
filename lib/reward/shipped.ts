import { fileURLToPath } from 'node:url';

const path = (name: string): string => fileURLToPath(new URL(`../../weights/${name}`, import.meta.url));

/**
 * The small face reward model that ships with the package, for RewardModel and for training by rewards: how near a picture of
 * 256 x 256 pixels comes to a clear face. It knows one caption.
 */
export const shippedReward = {
  weights: path('frm-256.safetensors'),
  tokenizer: path('frm-256-tokenizer.json'),
  caption: 'a face',
} as const;
