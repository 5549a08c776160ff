// The game of one player in the worker: dreams frames at the world's rate, with the latest input.

import { ActionSpace, Controls } from "./control.js";
import { Dream } from "./dream.js";

const REWIND_FRAMES = 10;

export class Player {
  // world: World. post(message, transfers): sends to the page.
  constructor(world, post) {
    Object.assign(this, { world, post });
    this.space = new ActionSpace(world.manifest.actions);
    this.controls = new Controls(this.space, world.fps);
    this.framePeriod = 1000 / world.fps;
    this.input = { axes: new Array(this.space.size).fill(0), pointer: false, seq: 0 };
    this.paused = false;
    this.changes = []; // resets, rewinds and single steps, which wait for the end of the current frame
    this.wake = () => {};
  }

  // seed: string of digits, because a number of JavaScript does not hold all seeds.
  async begin({ start, seed }) {
    const dream = new Dream(this.world, start, BigInt(seed));
    await dream.begin();
    this.dream = dream;
  }

  async reset(request) {
    await this.begin(request);
    this.resume();
  }

  rewind() {
    this.dream.rewind(REWIND_FRAMES);
    this.resume();
  }

  // Ends the wait for the next frame, or a pause, with a change.
  change(act) {
    this.changes.push(act);
    this.wake();
  }

  pause(paused) {
    this.paused = paused;
    this.post({ type: "paused", paused });
    this.wake();
  }

  singleStep() {
    this.pause(true);
    this.change(() => this.#step());
  }

  // Plays until the worker ends.
  async run() {
    for (let due = performance.now(); ; ) {
      await this.#sleep(this.paused ? Infinity : due - performance.now());
      while (this.changes.length > 0) await this.changes.shift()();
      if (this.paused || performance.now() < due) continue;
      await this.#step();
      // Frames that are late are not made up for.
      due = Math.max(due + this.framePeriod, performance.now());
    }
  }

  async #step() {
    const { input } = this;
    await this.dream.step(this.controls.action(input, this.lastAction));
    this.#show(input.seq);
  }

  get lastAction() {
    return this.dream.action ?? this.space.valid(this.space.rest);
  }

  // Shows the present frame and continues from it.
  resume() {
    this.controls.resumeFrom(this.lastAction);
    this.#show(this.input.seq);
  }

  #show(seq) {
    const { start, seed, numSteps, pixels, state } = this.dream;
    const header = { step: numSteps, start, seed: String(seed), seq, action: [...this.lastAction] };
    if (state !== null) header.state = [...state].map((value) => (Number.isFinite(value) ? value : null));
    const image = toImage(pixels, this.world.manifest.frame_size);
    this.post({ type: "frame", header, image }, [image.data.buffer]);
  }

  // Even without a wait, messages from the page get their turn.
  #sleep(milliseconds) {
    const wait = this.changes.length > 0 ? 0 : Math.max(0, milliseconds);
    return new Promise((resolve) => {
      const timer = Number.isFinite(wait) ? setTimeout(resolve, wait) : undefined;
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

// pixels: Float32Array (V,3,H,W) in [0, 1]. Returns the image of all cameras, side by side.
export function toImage(pixels, [height, width]) {
  const size = height * width;
  const cameras = pixels.length / (3 * size);
  const image = new ImageData(cameras * width, height);
  for (let camera = 0; camera < cameras; camera++) {
    for (let i = 0; i < size; i++) {
      const to = 4 * (Math.floor(i / width) * cameras * width + camera * width + (i % width));
      for (let channel = 0; channel < 3; channel++) {
        image.data[to + channel] = Math.round(255 * pixels[(3 * camera + channel) * size + i]);
      }
      image.data[to + 3] = 255;
    }
  }
  return image;
}
