// Normal noise from a seed, the same numbers as src/dreamer_hf/seeded_noise.py: Philox4x32-10 and Box-Muller.

export const MAX_SEED = 2n ** 63n - 1n;

const ROUNDS = 10;
const [MULTIPLIER_A, MULTIPLIER_B] = [0xd2511f53, 0xcd9e8d57];
const [KEY_STEP_A, KEY_STEP_B] = [0x9e3779b9, 0xbb67ae85];

// The high 32 bits of the product of two numbers of 32 bits, in halves whose products a double holds exactly.
function multiplyHigh(a, b) {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const other = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (other >>> 16)) >>> 0;
}

// counter: four numbers of 32 bits; key: two. Returns the block, four numbers of 32 bits.
export function philox(counter, key) {
  let [first, second, third, fourth] = counter;
  let [low, high] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const [highA, lowA] = [multiplyHigh(first, MULTIPLIER_A), Math.imul(first, MULTIPLIER_A)];
    const [highB, lowB] = [multiplyHigh(third, MULTIPLIER_B), Math.imul(third, MULTIPLIER_B)];
    [first, second, third, fourth] = [highB ^ second ^ low, lowB, highA ^ fourth ^ high, lowA];
    [low, high] = [(low + KEY_STEP_A) | 0, (high + KEY_STEP_B) | 0];
  }
  return [first >>> 0, second >>> 0, third >>> 0, fourth >>> 0];
}

export class SeededNoise {
  // seed: BigInt from 0 to MAX_SEED. numDraws: draws so far; set it to draw the same numbers again.
  constructor(seed) {
    this.key = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
    this.numDraws = 0;
  }

  // The next draw: Float32Array of standard normal numbers.
  normal(count) {
    const values = new Float32Array(4 * Math.ceil(count / 4));
    for (let block = 0; 4 * block < count; block++) {
      const words = philox([block, this.numDraws, 0, 0], this.key);
      for (const pair of [0, 2]) {
        const radius = Math.sqrt(-2 * Math.log((words[pair] + 0.5) / 2 ** 32));
        const angle = 2 * Math.PI * ((words[pair + 1] + 0.5) / 2 ** 32);
        values.set([radius * Math.cos(angle), radius * Math.sin(angle)], 4 * block + pair);
      }
    }
    this.numDraws += 1;
    return values.subarray(0, count);
  }
}
