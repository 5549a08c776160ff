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
    this.frameSize = tokens * dim; // numbers in the latents of a frame, those of the first camera first
    this.latentShape = [tokens, dim];
    this.numCameras = manifest.cameras?.length ?? 1;
    this.stateSize = manifest.state?.dim ?? 0;
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

  // The context of a start: {latents, actions, mask, states, stateMask} of all its frames. States are normalized, and
  // zero where they are not known.
  context(start) {
    const [latents, actions, mask] = ["latents", "actions", "action_mask"].map((name) => this.#ofStart(name, start));
    const known = this.starts.states !== undefined;
    const stateMask = known ? this.#ofStart("state_mask", start) : new Uint8Array(this.contextFrames);
    const states = new Float32Array(this.contextFrames * this.stateSize);
    if (known) states.set(this.#normalized(this.#ofStart("states", start)));
    return { latents, actions, mask, states: states.map((value, i) => (stateMask[Math.floor(i / this.stateSize)] ? value : 0)), stateMask };
  }

  // From normalized states to those in the units of the data.
  denormalized(states) {
    const { mean, std } = this.manifest.state;
    return states.map((value, i) => value * std[i % std.length] + mean[i % mean.length]);
  }

  #normalized(states) {
    const { mean, std } = this.manifest.state;
    return states.map((value, i) => (value - mean[i % mean.length]) / std[i % std.length]);
  }

  #ofStart(name, start) {
    const { shape, values } = this.starts[name];
    const size = values.length / shape[0];
    return values.subarray(start * size, (start + 1) * size);
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
      states: [frames.states, [1, count, this.stateSize]],
      state_mask: [frames.stateMask, [1, count]],
      ...ring.inputs(count),
    };
    return this.graphs.dynamics.run(inputs, outputs);
  }
}

// The decoder with its past, one for each camera.
class Decoder {
  constructor(world) {
    this.world = world;
    this.spec = world.manifest.graphs.decoder;
    this.rings = Array.from({ length: world.numCameras }, () => new Ring(this.spec));
  }

  // Takes the context (C frames) and returns the pixels of its last frame.
  async firstFrame(latents) {
    const { frameSize, contextFrames } = this.world;
    const first = Math.max(0, contextFrames - 1 - this.spec.reach);
    for (const [camera, ring] of this.rings.entries()) {
      ring.nextPosition = first;
      for (const [from, to] of chunks(first, contextFrames - 1, this.spec.context_length)) {
        const outputs = await this.#run(latents.subarray(from * frameSize, to * frameSize), camera, ring.outputs);
        ring.commit(outputs, to - from, to - from);
      }
    }
    return (await this.next(latents.subarray((contextFrames - 1) * frameSize))).frames;
  }

  // Decodes one frame. Returns {frames: Float32Array (V,3,H,W) in [0, 1], undo}.
  async next(latents) {
    const frames = [];
    const undo = [];
    for (const [camera, ring] of this.rings.entries()) {
      const outputs = await this.#run(latents, camera, ["frames", ...ring.outputs]);
      frames.push(outputs.frames);
      undo.push(ring.commit(outputs, 1, 1));
    }
    return { frames: concatenated(frames), undo: () => undo.forEach((each) => each()) };
  }

  get bytesPerFrame() {
    return this.rings.reduce((sum, ring) => sum + ring.bytesPerFrame, 0);
  }

  // latents: of all cameras of some frames.
  #run(latents, camera, outputs) {
    const [tokens, dim] = this.world.latentShape;
    const count = latents.length / this.world.frameSize;
    const size = this.world.frameSize / this.rings.length;
    const starts = Array.from({ length: count }, (_, frame) => frame * this.world.frameSize + camera * size);
    const own = concatenated(starts.map((start) => latents.subarray(start, start + size)));
    const inputs = { latents: [own, [1, count, tokens / this.rings.length, dim]], ...this.rings[camera].inputs(count) };
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

  // Shows the model the context. Afterwards `pixels` is the start frame, `action` the one that led to it, or null, and
  // `state` that of the frame, the mean of the data if it is not known; null for a world without a state.
  async begin() {
    const { world, ring } = this;
    const { frameSize, contextFrames, actionSize, stateSize, schedule } = world;
    const { latents, actions, mask, states, stateMask } = world.context(this.start);
    const noisy = mix(this.noise.normal(contextFrames * frameSize), latents, schedule.contextLevel);
    const noisyStates = this.#mixedStates(stateSize && this.noise.normal(contextFrames * stateSize), states);
    const spec = world.manifest.graphs.dynamics;
    const first = contextFrames - Math.max(1, Math.min(contextFrames, spec.reach));
    const frames = (from, to) => ({
      latents: noisy.subarray(from * frameSize, to * frameSize),
      levels: new Array(to - from).fill(schedule.contextLevelId),
      sizes: new Array(to - from).fill(0),
      actions: actions.subarray(from * actionSize, to * actionSize),
      mask: mask.subarray(from, to),
      states: noisyStates.subarray(from * stateSize, to * stateSize),
      stateMask: stateMask.subarray(from, to),
    });
    ring.nextPosition = first;
    for (const [from, to] of chunks(first, contextFrames - 1, spec.context_length)) {
      ring.commit(await world.predict(frames(from, to), ring, ring.outputs), to - from, to - from);
    }
    this.pending = frames(contextFrames - 1, contextFrames);
    this.latents = latents.slice((contextFrames - 1) * frameSize);
    this.pixels = await this.decoder.firstFrame(latents);
    this.action = mask[contextFrames - 1] ? actions.slice((contextFrames - 1) * actionSize) : null;
    this.state = stateSize ? world.denormalized(states.slice((contextFrames - 1) * stateSize)) : null;
  }

  // Dreams one frame. action: Float32Array, or null for none.
  async step(action) {
    const { world, ring, noise } = this;
    const { schedule, frameSize, stateSize } = world;
    const before = this.#moment();
    const values = action === null ? new Float32Array(world.actionSize) : world.clipped(action);
    const frame = { latents: noise.normal(frameSize), actions: values, mask: Uint8Array.of(action !== null) };
    const commitNoise = noise.normal(frameSize);
    Object.assign(frame, { states: new Float32Array(0), stateMask: Uint8Array.of(true) });
    if (stateSize) frame.states = noise.normal(stateSize);
    const commitStateNoise = stateSize && noise.normal(stateSize);
    const predictions = stateSize ? ["clean", "clean_states"] : ["clean"];
    let undoRing;
    for (let step = 0; step < schedule.steps; step++) {
      const now = { ...frame, levels: [schedule.levelId(step)], sizes: [schedule.stepSizeId] };
      const passes = step === 0 ? joined(this.pending, now) : now;
      const outputs = await world.predict(passes, ring, [...predictions, ...(step === 0 ? ring.outputs : [])]);
      if (step === 0) undoRing = ring.commit(outputs, 1, 2);
      const fraction = 1 / (schedule.steps - step);
      frame.latents = toward(frame.latents, outputs.clean.subarray(-frameSize), fraction);
      if (stateSize) frame.states = toward(frame.states, outputs.clean_states.subarray(-stateSize), fraction);
    }
    const { frames: pixels, undo: undoDecoder } = await this.decoder.next(frame.latents);
    const noisy = mix(commitNoise, frame.latents, schedule.contextLevel);
    const noisyStates = this.#mixedStates(commitStateNoise, frame.states);
    this.pending = { ...frame, latents: noisy, states: noisyStates, levels: [schedule.contextLevelId], sizes: [0] };
    Object.assign(this, { latents: frame.latents, pixels, action: action && values, numSteps: this.numSteps + 1 });
    this.state = stateSize ? world.denormalized(frame.states) : null;
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

  // States at the signal level of the past; there are none in a world without a state.
  #mixedStates(noise, states) {
    return this.world.stateSize ? mix(noise, states, this.world.schedule.contextLevel) : states;
  }

  #moment() {
    const { pending, latents, pixels, action, state, numSteps } = this;
    return { pending, latents, pixels, action, state, numSteps, numDraws: this.noise.numDraws };
  }

  #remember(step) {
    const bytes = this.ring.bytesPerFrame + this.decoder.bytesPerFrame + this.pixels.byteLength;
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

function concatenated(parts) {
  if (parts.length === 1) return parts[0];
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((start, part) => (whole.set(part, start), start + part.length), 0);
  return whole;
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
    states: both("states", Float32Array),
    stateMask: both("stateMask", Uint8Array),
  };
}
