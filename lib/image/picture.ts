import sharp, { type Sharp } from 'sharp';
import { ReflError } from '../errors.ts';
import { readBytes } from './files.ts';

/** Pixels of an 8-bit sRGB image: row-major, three bytes each. */
export interface Rgb {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** An image file's pixels, upright. */
export interface Picture extends Rgb {
  /** One byte a pixel; undefined for a file that has none. It takes no part in restoring, and is put back afterwards. */
  readonly alpha?: Uint8Array;
  /** What was lost or guessed in reading, in words for the user. */
  readonly notes: readonly string[];
}

/** A path, the bytes of an image file, or a sharp instance whose own operations are applied first. */
export type ImageSource = string | Uint8Array | Sharp;

/** Pictures of more pixels than this are refused: finding and restoring the faces in one of this size takes 2 GB. */
export const MAX_PIXELS = 100e6;

/** What a source is called in messages. */
export const nameOf = (source: ImageSource): string =>
  typeof source === 'string' ? source : source instanceof Uint8Array ? 'the given bytes' : 'the given sharp instance';

/**
 * Reads an image: turned upright by its EXIF orientation, converted to 8-bit sRGB by its colour profile from whatever it is
 * (CMYK, grey, 16 bits), the first frame of an animation.
 *
 * Throws ERR_FILE where the file cannot be read, ERR_IMAGE where it is empty, no image, cut short, or over
 * {@link MAX_PIXELS}; both name the source.
 */
export async function decodeImage(source: ImageSource): Promise<Picture> {
  const name = nameOf(source);
  const bytes =
    typeof source === 'string' ? await readBytes(source) : source instanceof Uint8Array ? source : undefined;
  if (bytes?.length === 0) throw new ReflError('ERR_IMAGE', `${name}: the file is empty`);
  const open = (failOn: 'warning' | 'error'): Sharp =>
    bytes ? sharp(bytes, { failOn, limitInputPixels: false }) : (source as Sharp).clone();
  try {
    const { width = 0, height = 0, pageHeight = height, pages = 1, hasAlpha } = await open('error').metadata();
    const megapixels = (width * pageHeight) / 1e6;
    if (megapixels > MAX_PIXELS / 1e6) {
      const most = `at most ${MAX_PIXELS / 1e6} can be restored: make it smaller first`;
      throw new ReflError(
        'ERR_IMAGE',
        `${name}: ${width}x${pageHeight} is ${megapixels.toFixed(0)} megapixels; ${most}`,
      );
    }
    const notes = pages > 1 ? [`it has ${pages} frames or pages: only the first is used`] : [];
    const read = async (failOn: 'warning' | 'error'): Promise<Picture> => {
      const upright = open(failOn).autoOrient().toColourspace('srgb');
      const { data, info } = await upright.removeAlpha().raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
      if (!hasAlpha) return { width: info.width, height: info.height, data, notes };
      const opacity = open(failOn).autoOrient().toColourspace('srgb').ensureAlpha().extractChannel('alpha');
      const alpha = await opacity.raw({ depth: 'uchar' }).toBuffer();
      return { width: info.width, height: info.height, data, alpha, notes };
    };
    // Cameras write files that decoders warn about and read all the same; a file that ends early fails both ways.
    return await read('warning').catch(async (warning) => {
      const picture = await read('error');
      return { ...picture, notes: [...notes, `the file is damaged (${reason(warning)}): parts may look wrong`] };
    });
  } catch (error) {
    throw error instanceof ReflError
      ? error
      : new ReflError('ERR_IMAGE', `${name}: ${explain(error)}`, { cause: error });
  }
}

const reason = (error: unknown): string => (error as Error).message.trim().split('\n')[0].replace(/:$/, '');

function explain(error: unknown): string {
  const why = reason(error);
  if (/unsupported image format/.test(why))
    return 'it is no image of a kind that can be read (JPEG, PNG, WebP, TIFF, GIF, AVIF)';
  return `the image cannot be read: it is damaged or cut short (${why})`;
}

const rawOf = ({ width, height }: Rgb, channels: 1 | 3) => ({ raw: { width, height, channels } }) as const;

/** The pixels as a sharp instance. */
export const sharpOf = (image: Rgb): Sharp => sharp(image.data, rawOf(image, 3));

/** The square of `size` pixels in the middle of a picture that is no smaller. */
export async function middleOf(image: Rgb, size: number): Promise<Rgb> {
  const [left, top] = [(image.width - size) >> 1, (image.height - size) >> 1];
  const data = await sharpOf(image).extract({ left, top, width: size, height: size }).raw().toBuffer();
  return { width: size, height: size, data };
}

/** A PNG of the pixels, with `alpha` as its fourth channel when given. sRGB, no other metadata. */
export async function encodePng(image: Rgb, alpha?: Uint8Array): Promise<Buffer> {
  const pixels = sharpOf(image);
  return (alpha ? pixels.joinChannel(alpha as Buffer, rawOf(image, 1)) : pixels).png().toBuffer();
}

/** A PNG of two images of one height, side by side. */
export async function encodeBeside(left: Rgb, right: Rgb): Promise<Buffer> {
  const input = right.data as Buffer;
  const wide = sharpOf(left).extend({ right: right.width });
  return wide
    .composite([{ input, ...rawOf(right, 3), left: left.width, top: 0 }])
    .removeAlpha()
    .png()
    .toBuffer();
}
