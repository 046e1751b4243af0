import type { Picture } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import type { Plan } from './plan.ts';

export async function planPhotograph(_device: Device, picture: Picture, _size: number): Promise<Plan> {
  return { crops: [], notes: ['no face was found: the picture is unchanged'], compose: async () => picture };
}
