import { fitSquare, unfitSquare } from '../image/fit.ts';
import type { Picture, Rgb } from '../image/picture.ts';

/** What restoring one picture takes: the model's squares to restore, and how the results become the picture again. */
export interface Plan {
  /** Squares of the model's side. */
  readonly crops: readonly Rgb[];
  /** How many faces are among them. */
  readonly faces: number;
  readonly notes: readonly string[];
  /** Called with the restored crops, in order; resolves to pixels of the picture's size. */
  compose(restored: readonly Rgb[]): Promise<Rgb>;
}

/** The picture is one face, cropped and aligned: all of it goes through the model, brought to its size and back. */
export async function planAligned(picture: Picture, size: number): Promise<Plan> {
  const { square, box } = await fitSquare(picture, size);
  const { width, height } = picture;
  return { crops: [square], faces: 1, notes: [], compose: ([restored]) => unfitSquare(restored, box, width, height) };
}
