// One dream of an exported world: the same steps, in the same order, as the rollouts of the Python package.

import { SeededNoise } from "./noise.js";
import { Ring } from "./ring.js";

const MAX_HISTORY_BYTES = 64 * 2 ** 20;
const DEFAULT_FPS = 10; // for a world that does not know its rate
const MIN_CHUNK_FRAMES = 32; // of the passes that a long context is split into

export class World {
  // manifest: of the export. starts: {name: {shape, values}} of its file. graphs: {dynamics, decoder}, each with
  // `run(inputs, outputs)`, where inputs are {name: [values, shape]} and the result is {name: Float32Array}.
  constructor(manifest, starts, graphs) {
    Object.assign(this, { manifest, starts, graphs });
    const { num_tokens: tokens, dim } = manifest.latents;
    this.frameSize = tokens * dim; // numbers in the latents of a frame
    this.latentShape = [tokens, dim];
    this.contextFrames = starts.latents.shape[1];
    this.actionSize = starts.actions.shape[2];
    const { num_inference_steps: steps, context_signal_level: level, num_signal_levels: levels } = manifest.generation;
    this.schedule = {
      steps,
      contextLevel: level,
      contextLevelId: Math.floor(level * levels + 1e-9),
      levelId: (step) => step * (levels / steps),
      stepSizeId: Math.round(Math.log2(levels / steps)),
    };
    const limit = (values, missing) => values.map((value) => value ?? missing);
    this.limits = [limit(manifest.actions.low, -Infinity), limit(manifest.actions.high, Infinity)];
  }

  // Frames per second.
  get fps() {
    return this.manifest.fps ?? DEFAULT_FPS;
  }

  get numStarts() {
    return this.starts.latents.shape[0];
  }

  clipped(action) {
    const [low, high] = this.limits;
    return Float32Array.from(action, (value, i) => Math.min(high[i], Math.max(low[i], value)));
  }

  // The context of a start: {latents, actions, mask} of all its frames.
  context(start) {
    const [latents, actions, mask] = ["latents", "actions", "action_mask"].map((name) => {
      const { shape, values } = this.starts[name];
      const size = values.length / shape[0];
      return values.subarray(start * size, (start + 1) * size);
    });
    return { latents, actions, mask };
  }

  // The last frame of a start, for people who choose one: pixels as of `Dream.step`.
  async preview(start) {
    const decoder = new Decoder(this);
    return decoder.firstFrame(this.context(start).latents);
  }

  async predict(frames, ring, outputs) {
    const count = frames.levels.length;
    const inputs = {
      latents: [frames.latents, [1, count, ...this.latentShape]],
      signal_level_ids: [BigInt64Array.from(frames.levels, BigInt), [1, count]],
      step_size_ids: [BigInt64Array.from(frames.sizes, BigInt), [1, count]],
      actions: [frames.actions, [1, count, this.actionSize]],
      action_mask: [frames.mask, [1, count]],
      ...ring.inputs(count),
    };
    return this.graphs.dynamics.run(inputs, outputs);
  }
}

// The decoder with its past.
class Decoder {
  constructor(world) {
    this.world = world;
    this.spec = world.manifest.graphs.decoder;
    this.ring = new Ring(this.spec);
  }

  // Takes the context (C frames) and returns the pixels of its last frame.
  async firstFrame(latents) {
    const { frameSize, contextFrames } = this.world;
    const first = Math.max(0, contextFrames - 1 - this.spec.reach);
    this.ring.nextPosition = first;
    for (const [from, to] of chunks(first, contextFrames - 1, this.spec.context_length)) {
      const outputs = await this.#run(latents.subarray(from * frameSize, to * frameSize), this.ring.outputs);
      this.ring.commit(outputs, to - from, to - from);
    }
    return (await this.next(latents.subarray((contextFrames - 1) * frameSize))).frames;
  }

  // Decodes one frame. Returns {frames: Float32Array (3,H,W) in [0, 1], undo}.
  async next(latents) {
    const outputs = await this.#run(latents, ["frames", ...this.ring.outputs]);
    return { frames: outputs.frames, undo: this.ring.commit(outputs, 1, 1) };
  }

  #run(latents, outputs) {
    const count = latents.length / this.world.frameSize;
    const inputs = { latents: [latents, [1, count, ...this.world.latentShape]], ...this.ring.inputs(count) };
    return this.world.graphs.decoder.run(inputs, outputs);
  }
}

export class Dream {
  // seed: BigInt. Call `begin` before anything else.
  constructor(world, start, seed) {
    Object.assign(this, { world, start, seed });
    this.noise = new SeededNoise(seed);
    this.ring = new Ring(world.manifest.graphs.dynamics);
    this.decoder = new Decoder(world);
    this.history = [];
    this.numSteps = 0;
  }

  // Shows the model the context. Afterwards `pixels` is the start frame, and `action` the one that led to it, or null.
  async begin() {
    const { world, ring } = this;
    const { frameSize, contextFrames, actionSize, schedule } = world;
    const { latents, actions, mask } = world.context(this.start);
    const noisy = mix(this.noise.normal(contextFrames * frameSize), latents, schedule.contextLevel);
    const spec = world.manifest.graphs.dynamics;
    const first = contextFrames - Math.max(1, Math.min(contextFrames, spec.reach));
    const frames = (from, to) => ({
      latents: noisy.subarray(from * frameSize, to * frameSize),
      levels: new Array(to - from).fill(schedule.contextLevelId),
      sizes: new Array(to - from).fill(0),
      actions: world.context(this.start).actions.subarray(from * actionSize, to * actionSize),
      mask: mask.subarray(from, to),
    });
    ring.nextPosition = first;
    for (const [from, to] of chunks(first, contextFrames - 1, spec.context_length)) {
      ring.commit(await world.predict(frames(from, to), ring, ring.outputs), to - from, to - from);
    }
    this.pending = frames(contextFrames - 1, contextFrames);
    this.latents = latents.slice((contextFrames - 1) * frameSize);
    this.pixels = await this.decoder.firstFrame(latents);
    this.action = mask[contextFrames - 1] ? actions.slice((contextFrames - 1) * actionSize) : null;
  }

  // Dreams one frame. action: Float32Array, or null for none.
  async step(action) {
    const { world, ring, noise } = this;
    const { schedule, frameSize } = world;
    const before = this.#state();
    const values = action === null ? new Float32Array(world.actionSize) : world.clipped(action);
    const frame = { latents: noise.normal(frameSize), actions: values, mask: Uint8Array.of(action !== null) };
    const commitNoise = noise.normal(frameSize);
    let undoRing;
    for (let step = 0; step < schedule.steps; step++) {
      const now = { ...frame, levels: [schedule.levelId(step)], sizes: [schedule.stepSizeId] };
      const passes = step === 0 ? joined(this.pending, now) : now;
      const outputs = await world.predict(passes, ring, ["clean", ...(step === 0 ? ring.outputs : [])]);
      if (step === 0) undoRing = ring.commit(outputs, 1, 2);
      frame.latents = toward(frame.latents, outputs.clean.subarray(-frameSize), 1 / (schedule.steps - step));
    }
    const { frames: pixels, undo: undoDecoder } = await this.decoder.next(frame.latents);
    const noisy = mix(commitNoise, frame.latents, schedule.contextLevel);
    this.pending = { ...frame, latents: noisy, levels: [schedule.contextLevelId], sizes: [0] };
    Object.assign(this, { latents: frame.latents, pixels, action: action && values, numSteps: this.numSteps + 1 });
    this.#remember({ before, undo: [undoRing, undoDecoder] });
  }

  // Goes back up to `count` frames, as far as the memory of the past reaches.
  rewind(count) {
    for (; count > 0 && this.history.length > 0; count--) {
      const { before, undo } = this.history.pop();
      for (const each of undo) each();
      const { numDraws, ...rest } = before;
      Object.assign(this, rest);
      this.noise.numDraws = numDraws;
    }
  }

  #state() {
    const { pending, latents, pixels, action, numSteps } = this;
    return { pending, latents, pixels, action, numSteps, numDraws: this.noise.numDraws };
  }

  #remember(step) {
    const bytes = this.ring.bytesPerFrame + this.decoder.ring.bytesPerFrame + this.pixels.byteLength;
    this.history.push(step);
    if (this.history.length * bytes > MAX_HISTORY_BYTES) this.history.shift();
  }
}

// The passes of frames `from` to `to`, each at most as long as a window or 32 frames.
function chunks(from, to, window) {
  const length = Math.max(window, MIN_CHUNK_FRAMES);
  const starts = Array.from({ length: Math.ceil((to - from) / length) }, (_, i) => from + i * length);
  return starts.map((start) => [start, Math.min(to, start + length)]);
}

// (1 - level) * noise + level * clean
function mix(noise, clean, level) {
  return noise.map((value, i) => (1 - level) * value + level * clean[i]);
}

// The Euler step: a fraction of the way to the prediction.
function toward(noisy, clean, fraction) {
  return noisy.map((value, i) => value + (clean[i] - value) * fraction);
}

function joined(first, second) {
  const both = (name, Kind) => Kind.from([...first[name], ...second[name]]);
  return {
    latents: both("latents", Float32Array),
    levels: both("levels", Array),
    sizes: both("sizes", Array),
    actions: both("actions", Float32Array),
    mask: both("mask", Uint8Array),
  };
}
