// Reads safetensors files: the length of the header (uint64, little-endian), the header (JSON), and the values.

const READERS = {
  F32: (buffer) => new Float32Array(buffer),
  F16: (buffer) => Float32Array.from(new Uint16Array(buffer), halfToFloat),
  U8: (buffer) => new Uint8Array(buffer),
  BOOL: (buffer) => new Uint8Array(buffer),
};

// bytes: Uint8Array. Returns {name: {shape, values}}; float16 becomes float32.
export function readSafetensors(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  delete header.__metadata__;
  const entries = Object.entries(header).map(([name, { dtype, shape, data_offsets: [from, to] }]) => {
    if (!(dtype in READERS)) throw new Error(`The start frames hold numbers of type ${dtype}: export the world again.`);
    const values = READERS[dtype](bytes.slice(start + from, start + to).buffer);
    return [name, { shape, values }];
  });
  return Object.fromEntries(entries);
}

function halfToFloat(half) {
  const [sign, exponent, fraction] = [half & 0x8000 ? -1 : 1, (half >> 10) & 31, half & 1023];
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
