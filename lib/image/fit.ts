import { type Rgb, sharpOf } from './picture.ts';

/** Where in a square an image lies that was fitted into it. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** Bicubic, with a filter as wide as the step where the image shrinks. */
const filter = { kernel: 'cubic', fit: 'fill' } as const;

/** The image at another size. */
export async function resized(image: Rgb, width: number, height: number): Promise<Rgb> {
  if (image.width === width && image.height === height) return image;
  return { width, height, data: await sharpOf(image).resize(width, height, filter).raw().toBuffer() };
}

/**
 * The image scaled so that its longer side is `size`, in the middle of a square of that side; its border pixels are repeated
 * outwards. An image of exactly that size comes back untouched.
 */
export async function fitSquare(image: Rgb, size: number): Promise<{ square: Rgb; box: Box }> {
  const scale = size / Math.max(image.width, image.height);
  const width = Math.max(1, Math.round(image.width * scale));
  const height = Math.max(1, Math.round(image.height * scale));
  const box = { left: (size - width) >> 1, top: (size - height) >> 1, width, height };
  if (image.width === size && image.height === size) return { square: image, box };
  const right = size - width - box.left;
  const bottom = size - height - box.top;
  const square = sharpOf(image)
    .resize(width, height, filter)
    .extend({ top: box.top, left: box.left, right, bottom, extendWith: 'copy' });
  return { square: { width: size, height: size, data: await square.raw().toBuffer() }, box };
}

/** Undoes {@link fitSquare}: the box of the square, scaled to `width` x `height`. */
export async function unfitSquare(square: Rgb, box: Box, width: number, height: number): Promise<Rgb> {
  if (square.width === width && square.height === height) return square;
  return { width, height, data: await sharpOf(square).extract(box).resize(width, height, filter).raw().toBuffer() };
}
