import { add, affine, cast, clamp, minimum, mul, sub } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { type Rgb, sharpOf } from '../image/picture.ts';
import { type Device, evaluate } from '../runtime/index.ts';
import { apply, type Box, invert, type Similarity, scaleOf } from './align.ts';
import { affinePositions, sample } from './warp.ts';

/** Bytes of 8-bit pixels from values of 0 to 255; a cast cuts the fraction off. */
const toBytes = (x: Tensor): Tensor => cast(affine(clamp(x, 0, 255), 1, 0.5), 'u8');

/**
 * A square of `size` pixels a side, cut from a photograph along `map` (photograph to crop; see `alignment`). Where the crop
 * reaches beyond the photograph, its border repeats.
 *
 * The photograph is brought to the crop's scale first, by a filter that does not alias, and then turned by bicubic sampling.
 */
export async function cropFace(device: Device, photograph: Rgb, map: Similarity, size: number): Promise<Rgb> {
  const region = regionOf(photograph, map, size, 4);
  const shrink = Math.min(1, scaleOf(map));
  const width = Math.max(1, Math.round(region.width * shrink));
  const height = Math.max(1, Math.round(region.height * shrink));
  const part = sharpOf(photograph).extract(region).resize(width, height, { fit: 'fill', kernel: 'cubic' });
  const image = new Uint8Array(await part.raw().toBuffer());

  const back = invert(map);
  const [kx, ky] = [width / region.width, height / region.height];
  const matrix = Float32Array.of(
    back.a * kx,
    -back.b * kx,
    (back.tx - region.left) * kx,
    back.b * ky,
    back.a * ky,
    (back.ty - region.top) * ky,
  );
  const x = cast(input('image', [height, width, 3], 'u8'), 'f32');
  const crop = toBytes(sample(x, affinePositions(input('matrix', [6]), [size, size]), 'bicubic'));
  const { crop: data } = await evaluate(device, { crop }, { image, matrix });
  return { width: size, height: size, data: data as Uint8Array };
}

/** Fraction of a crop's side over which it fades out towards each edge when it is pasted. */
const feather = 0.15;
/** Pixels composed at a time: what bounds the memory where a face fills a large photograph. */
const bandPixels = 2 ** 20;

/**
 * The photograph with a (restored) square crop put back where {@link cropFace} took it with the same `map`. The crop fades
 * out smoothly over the outer 15% on each side, so that no edge of it shows.
 */
export async function pasteFace(device: Device, photograph: Rgb, crop: Rgb, map: Similarity): Promise<Rgb> {
  // Copied by sharp, for a large photograph would hold the event loop.
  const pasted = await sharpOf(photograph).raw().toBuffer();
  const region = regionOf(photograph, map, crop.width, 0);
  // Shrunk, where the photograph has fewer pixels for the face than the crop, to keep sampling from aliasing.
  const side = Math.max(1, Math.round(crop.width * Math.min(1, 1 / scaleOf(map))));
  const shrunk = sharpOf(crop).resize(side, side, { fit: 'fill', kernel: 'cubic' });
  const face = new Uint8Array(await shrunk.raw().toBuffer());
  const k = side / crop.width;

  const { left, width } = region;
  const rows = Math.min(region.height, Math.ceil(bandPixels / width));
  const x = cast(input('photograph', [rows, width, 3], 'u8'), 'f32');
  const at = affinePositions(input('matrix', [6]), [rows, width]);
  const warped = sample(cast(input('face', [side, side, 3], 'u8'), 'f32'), at, 'bicubic');
  const weight = reshape(mul(fade(at.x, side), fade(at.y, side)), [rows, width, 1]);
  using program = await device.compile({ outputs: { pixels: toBytes(add(x, mul(sub(warped, x), weight))) } });
  for (let start = 0; start < region.height; start += rows) {
    // The last band reaches back over rows that are done: it composes them anew from the photograph's own pixels.
    const top = region.top + Math.min(start, region.height - rows);
    const matrix = Float32Array.of(
      map.a * k,
      -map.b * k,
      (map.a * left - map.b * top + map.tx) * k,
      map.b * k,
      map.a * k,
      (map.b * left + map.a * top + map.ty) * k,
    );
    const band = copyBox(photograph, { left, top, width, height: rows });
    const { pixels } = await program.run({ photograph: band, face, matrix });
    for (let row = 0; row < rows; row++) {
      const line = pixels.subarray(row * width * 3, (row + 1) * width * 3);
      pasted.set(line, ((top + row) * photograph.width + left) * 3);
    }
  }
  return { width: photograph.width, height: photograph.height, data: pasted };
}

/** 1 inside, falling smoothly (3t^2 - 2t^3) to 0 at both ends of [0, side] and beyond. */
function fade(position: Tensor, side: number): Tensor {
  const inside = minimum(position, affine(position, -1, side));
  const t = clamp(affine(inside, 1 / (feather * side)), 0, 1);
  return mul(mul(t, t), affine(t, -2, 3));
}

/** The photograph's pixels that a crop covers, and `margin` more around them; at least one pixel. */
function regionOf({ width, height }: Rgb, map: Similarity, size: number, margin: number): Box {
  const back = invert(map);
  const corners = [
    [0, 0],
    [size, 0],
    [0, size],
    [size, size],
  ].map(([x, y]) => apply(back, { x, y }));
  const more = margin * Math.max(1, 1 / scaleOf(map));
  const clip = (value: number, most: number): number => Math.min(most, Math.max(0, value));
  const left = clip(Math.floor(Math.min(...corners.map((p) => p.x)) - more), width - 1);
  const top = clip(Math.floor(Math.min(...corners.map((p) => p.y)) - more), height - 1);
  const right = clip(Math.ceil(Math.max(...corners.map((p) => p.x)) + more), width);
  const bottom = clip(Math.ceil(Math.max(...corners.map((p) => p.y)) + more), height);
  return { left, top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) };
}

function copyBox({ data, width }: Rgb, region: Box): Uint8Array {
  const rows = new Uint8Array(region.width * region.height * 3);
  for (let y = 0; y < region.height; y++) {
    const start = ((region.top + y) * width + region.left) * 3;
    rows.set(data.subarray(start, start + region.width * 3), y * region.width * 3);
  }
  return rows;
}
