import { type Rgb, sharpOf } from '../image/picture.ts';

/** What needs no model: pictures that people may be asked to compare restorations with. */
export const filters = {
  /** The picture as it came. */
  input: async (picture: Rgb): Promise<Rgb> => picture,
  /** Halved and enlarged again, bicubic both ways: less noise, and less detail. */
  bicubic: async (picture: Rgb): Promise<Rgb> => {
    const { width, height } = picture;
    const [w, h] = [Math.ceil(width / 2), Math.ceil(height / 2)];
    const small = { width: w, height: h, data: await sharpOf(picture).resize(w, h, cubic).raw().toBuffer() };
    return { width, height, data: await sharpOf(small).resize(width, height, cubic).raw().toBuffer() };
  },
  /** An unsharp mask of two pixels. */
  sharpen: async (picture: Rgb): Promise<Rgb> => ({
    ...picture,
    data: await sharpOf(picture).sharpen({ sigma: 2 }).raw().toBuffer(),
  }),
  /** The median of 5 x 5 pixels. */
  denoise: async (picture: Rgb): Promise<Rgb> => ({
    ...picture,
    data: await sharpOf(picture).median(5).raw().toBuffer(),
  }),
};

const cubic = { fit: 'fill', kernel: 'cubic' } as const;

export type FilterName = keyof typeof filters;
