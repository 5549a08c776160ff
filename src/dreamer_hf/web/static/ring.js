// The past of one transformer: the keys and values of its time layers, for the frames that are in their window.
// Frame p has slot p % capacity, and capacity is one less than the window, which includes the frame itself.

const HIDDEN = -1e9; // added to the logits of what a frame cannot see
const EMPTY = -Infinity; // position of a slot without a frame

export class Ring {
  // spec: the graph's entry of the manifest. nextPosition: position of the first frame.
  constructor(spec, nextPosition = 0) {
    this.window = spec.context_length;
    this.width = spec.head_dim;
    this.capacity = this.window - 1;
    this.heads = this.capacity > 0 ? spec.cache_heads : [];
    this.frequencies = Array.from({ length: this.width / 2 }, (_, i) => spec.rope_theta ** ((-2 * i) / this.width));
    this.nextPosition = nextPosition;
    this.positions = new Array(this.capacity).fill(EMPTY);
    const zeros = () => this.heads.map((count) => new Float32Array(count * this.capacity * this.width));
    this.layers = { key: zeros(), value: zeros() };
  }

  // What a pass over the next `frames` frames reads: {name: [values, shape]}.
  inputs(frames) {
    const inputs = this.#tables(frames);
    inputs.mask = [this.#mask(frames), [1, 1, frames, this.capacity + frames]];
    for (const [kind, layers] of Object.entries(this.layers)) {
      layers.forEach((values, layer) => {
        inputs[`past_${kind}_${layer}`] = [values, [1, this.heads[layer], this.capacity, this.width]];
      });
    }
    return inputs;
  }

  get outputs() {
    return Object.keys(this.layers).flatMap((kind) => this.heads.map((_, layer) => `new_${kind}_${layer}`));
  }

  // Keeps the first `count` of the `frames` frames of a pass, whose outputs are {name: Float32Array}.
  // Returns a function that takes the last frame back, and the number of bytes that it holds.
  commit(outputs, count, frames) {
    let undo = () => {};
    for (let frame = Math.max(0, count - this.capacity); frame < count; frame++) {
      const position = this.nextPosition + frame;
      undo = this.#write(outputs, frame, frames, position % this.capacity, position);
    }
    this.nextPosition += count;
    return undo;
  }

  get bytesPerFrame() {
    return 8 * this.width * this.heads.reduce((sum, count) => sum + count, 0);
  }

  #write(outputs, frame, frames, slot, position) {
    const { width, capacity } = this;
    const previous = this.positions[slot];
    const parts = Object.entries(this.layers).flatMap(([kind, layers]) =>
      layers.map((ring, layer) => {
        const added = outputs[`new_${kind}_${layer}`];
        const replaced = new Float32Array(this.heads[layer] * width);
        for (let head = 0; head < this.heads[layer]; head++) {
          const [to, from] = [(head * capacity + slot) * width, (head * frames + frame) * width];
          replaced.set(ring.subarray(to, to + width), head * width);
          ring.set(added.subarray(from, from + width), to);
        }
        return [ring, replaced];
      }),
    );
    this.positions[slot] = position;
    return () => {
      for (const [ring, replaced] of parts) {
        for (let head = 0; head * width < replaced.length; head++) {
          ring.set(replaced.subarray(head * width, (head + 1) * width), (head * capacity + slot) * width);
        }
      }
      this.positions[slot] = previous;
      this.nextPosition = position;
    };
  }

  // Rotary tables, cosines [c, c] and signed sines [-s, s], from positions in double precision.
  #tables(frames) {
    const [cos, sin] = [new Float32Array(frames * this.width), new Float32Array(frames * this.width)];
    const half = this.width / 2;
    for (let frame = 0; frame < frames; frame++) {
      this.frequencies.forEach((frequency, i) => {
        const angle = (this.nextPosition + frame) * frequency;
        const at = frame * this.width + i;
        cos[at] = cos[at + half] = Math.cos(angle);
        sin[at + half] = Math.sin(angle);
        sin[at] = -sin[at + half];
      });
    }
    const shape = [1, frames, this.width];
    return { cos: [cos, shape], sin: [sin, shape] };
  }

  #mask(frames) {
    const mask = new Float32Array(frames * (this.capacity + frames)).fill(HIDDEN);
    for (let frame = 0; frame < frames; frame++) {
      const row = frame * (this.capacity + frames);
      const oldest = this.nextPosition + frame - this.window; // no longer in the window
      this.positions.forEach((position, slot) => {
        if (position > oldest) mask[row + slot] = 0;
      });
      for (let other = Math.max(0, frame - this.window + 1); other <= frame; other++) mask[row + this.capacity + other] = 0;
    }
    return mask;
  }
}
