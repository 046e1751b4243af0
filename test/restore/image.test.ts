import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { writeAtomic } from '../../lib/image/files.ts';
import { fitSquare, unfitSquare } from '../../lib/image/fit.ts';
import { decodeImage, encodeBeside, encodePng } from '../../lib/image/picture.ts';
import { distance, failure, picture, temporaryFolder } from './support.ts';

const test = suite('image');
const folder = temporaryFolder();
const rgb = await picture(40, 30).raw().toBuffer();

test('8-bit RGB passes through a PNG unchanged, from a path, from bytes and from a sharp instance', async () => {
  const png = await encodePng({ width: 40, height: 30, data: rgb });
  const path = join(folder, 'plain.png');
  await writeAtomic(path, png);
  for (const source of [path, png, new Uint8Array(png), picture(40, 30)]) {
    const { width, height, data, alpha, notes } = await decodeImage(source);
    assert.equal([width, height, alpha, notes], [40, 30, undefined, []]);
    assert.ok(rgb.equals(data));
  }
});

test('alpha is kept apart, and comes back bit for bit', async () => {
  const rgba = await picture(40, 30, 4).png().toBuffer();
  const { alpha, ...image } = await decodeImage(rgba);
  const again = await sharp(await encodePng(image, alpha))
    .raw()
    .toBuffer({ resolveWithObject: true });
  assert.is(again.info.channels, 4);
  assert.ok(again.data.equals(await picture(40, 30, 4).raw().toBuffer()));
});

test('grey, CMYK, 16-bit and EXIF-rotated pictures become upright 8-bit RGB', async () => {
  const grey = await decodeImage(await picture(40, 30).greyscale().png().toBuffer());
  assert.is(grey.data.length, 40 * 30 * 3);
  assert.is(grey.data[0], grey.data[1]);

  const deep = await picture(40, 30).toColourspace('rgb16').png().toBuffer();
  assert.is((await sharp(deep).metadata()).depth, 'ushort');
  assert.ok(distance((await decodeImage(deep)).data, rgb) <= 1);

  const cmyk = await picture(40, 30).toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer();
  assert.is((await sharp(cmyk).metadata()).space, 'cmyk');
  const { data, width } = await decodeImage(cmyk);
  assert.equal([width, data.length], [40, 40 * 30 * 3]);
  assert.ok(distance(data, rgb) < 60, 'CMYK holds fewer colours, but the picture is the same');

  const rotated = await decodeImage(await picture(40, 30).withMetadata({ orientation: 6 }).png().toBuffer());
  assert.equal([rotated.width, rotated.height], [30, 40]);
  assert.ok((await picture(40, 30).rotate(90).raw().toBuffer()).equals(rotated.data));
});

test('of an animation the first frame is read, and that is said', async () => {
  const frames = Buffer.concat([0, 1, 2].map((i) => Buffer.alloc(20 * 10 * 3, 40 + 80 * i)));
  const gif = await sharp(frames, { raw: { width: 20, height: 30, channels: 3, pageHeight: 10 } })
    .gif()
    .toBuffer();
  const { width, height, data, notes } = await decodeImage(gif);
  assert.equal([width, height, data[0]], [20, 10, 40]);
  assert.match(notes[0], /3 frames/);
});

test('a JPEG with damage in the middle is read, and that is said', async () => {
  const jpeg = await picture(200, 200).jpeg().toBuffer();
  for (let i = 700; i < jpeg.length - 20; i += 29) jpeg[i] = 0x5a;
  const { width, notes } = await decodeImage(jpeg);
  assert.is(width, 200);
  assert.match(notes[0], /damaged/);
});

test('what is no image is refused, by name', async () => {
  const jpeg = await picture(100, 100).jpeg().toBuffer();
  const png = await picture(100, 100).png().toBuffer();
  const huge = await sharp({ create: { width: 20_000, height: 6000, channels: 3, background: '#888' } })
    .png()
    .toBuffer();
  const cases: Record<string, [Buffer, RegExp]> = {
    'empty.png': [Buffer.alloc(0), /the file is empty/],
    'text.jpg': [Buffer.from('once upon a time there was no image'), /no image/],
    'short.jpg': [jpeg.subarray(0, jpeg.length / 2), /cut short/],
    'shorter.jpg': [jpeg.subarray(0, 20), /./],
    'short.png': [png.subarray(0, png.length / 2), /cut short/],
    'huge.png': [huge, /20000x6000 is 120 megapixels; at most 100/],
  };
  for (const [name, [bytes, why]] of Object.entries(cases)) {
    const path = join(folder, name);
    await writeFile(path, bytes);
    const error = await failure(decodeImage(path));
    assert.is(error.code, 'ERR_IMAGE', name);
    assert.ok(error.message.startsWith(`${path}: `), error.message);
    assert.match(error.message, why);
    assert.not.match(error.message, /\n/);
  }
  const loop = join(folder, 'loop.png');
  await symlink(loop, loop);
  for (const path of [join(folder, 'none.png'), folder, '/dev/zero', loop]) {
    const error = await failure(decodeImage(path));
    assert.is(error.code, 'ERR_FILE');
    assert.ok(error.message.startsWith(`${path}: cannot read: `), error.message);
  }
});

test('a picture fits into a square and back: any shape, from one pixel on', async () => {
  for (const [width, height] of [
    [32, 32],
    [40, 30],
    [1, 1],
    [3, 200],
    [500, 2],
    [64, 64],
  ]) {
    const data = await picture(width, height).raw().toBuffer();
    const { square, box } = await fitSquare({ width, height, data }, 32);
    assert.is(square.data.length, 32 * 32 * 3);
    assert.is(Math.max(box.width, box.height), 32);
    const back = await unfitSquare(square, box, width, height);
    assert.equal([back.width, back.height, back.data.length], [width, height, data.length]);
    if (width === 32) assert.ok(data.equals(back.data), 'no resampling at the same size');
    if (width === 64) assert.ok(distance(back.data, data) < 12, `${distance(back.data, data)}`);
  }
});

test('a comparison is twice as wide', async () => {
  const left = { width: 40, height: 30, data: rgb };
  const right = { width: 40, height: 30, data: Buffer.alloc(rgb.length, 7) };
  const { data, info } = await sharp(await encodeBeside(left, right))
    .raw()
    .toBuffer({ resolveWithObject: true });
  assert.equal([info.width, info.height, info.channels], [80, 30, 3]);
  assert.equal([...data.subarray(0, 3)], [...rgb.subarray(0, 3)]);
  assert.equal([...data.subarray(-3)], [7, 7, 7]);
});

test('a failed write leaves the old file and nothing else', async () => {
  const place = join(folder, 'place');
  await mkdir(join(place, 'busy.png'), { recursive: true });
  const error = await failure(writeAtomic(join(place, 'busy.png'), Buffer.from('new')));
  assert.is(error.code, 'ERR_FILE');
  assert.equal(await readdir(place), ['busy.png']);
  assert.is((await failure(writeAtomic(join(place, 'no', 'file.png'), Buffer.from('new')))).code, 'ERR_FILE');

  await writeAtomic(join(place, 'file.png'), Buffer.from('old'));
  await writeAtomic(join(place, 'file.png'), Buffer.from('new'));
  assert.is(await readFile(join(place, 'file.png'), 'utf8'), 'new');
  assert.equal((await readdir(place)).sort(), ['busy.png', 'file.png']);
});

test.run();
