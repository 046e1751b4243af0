/** The two 16-bit floating types of weight files. */
export type HalfType = 'F16' | 'BF16';

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);

/** Values of 16-bit floats, exactly. */
export function toFloat32(halves: Uint16Array, type: HalfType): Float32Array {
  const [values, convert] = [new Float32Array(halves.length), type === 'F16' ? fromF16 : fromBf16];
  // Several times as fast as TypedArray.from, which asks an iterator.
  for (let i = 0; i < values.length; i++) values[i] = convert(halves[i]);
  return values;
}

/** Float32 values rounded to the nearest 16-bit float, ties to even; beyond the largest they become infinite. */
export function fromFloat32(values: Float32Array, type: HalfType): Uint16Array {
  const [halves, convert] = [new Uint16Array(values.length), type === 'F16' ? toF16 : toBf16];
  for (let i = 0; i < halves.length; i++) halves[i] = convert(values[i]);
  return halves;
}

function fromBf16(h: number): number {
  bits[0] = h << 16;
  return float[0];
}

function toBf16(value: number): number {
  float[0] = value;
  const b = bits[0];
  if (Number.isNaN(value)) return (b >>> 16) | 0x40;
  return (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
}

function fromF16(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 0x1f;
  const fraction = h & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function toF16(value: number): number {
  float[0] = value;
  const b = bits[0];
  const sign = (b >>> 16) & 0x8000;
  const magnitude = b & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // From 65520 on, halfway between the largest float16 and 2^16, values round to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2^-14 float16 counts in steps of 2^-24. The product is exact; adding 2^52 rounds it to even.
    return sign | (Math.abs(value) * 2 ** 24 + 2 ** 52 - 2 ** 52);
  }
  const rebiased = magnitude - (112 << 23);
  return sign | ((rebiased + 0xfff + ((rebiased >>> 13) & 1)) >>> 13);
}
