// A dream in this browser, in a worker.
//
// The page sends the messages that it would send to a server (input, pause, step, reset, record), `open` before all
// others, and `rewind`. The worker answers with progress, hello, frame, paused and error. Recording happens on the page.

import { Connection } from "./connection.js";
import { MAX_SEED } from "./noise.js";
import { Recorder } from "./recorder.js";

const NUM_RANDOM_SEEDS = 1e6;
const ENGINES = ["wasm", "webgpu"];

// A module that uses one instruction of 128 bits.
const SIMD_MODULE = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

// What this browser lacks to run a dream, or null.
export function missingFeature() {
  if (!self.WebAssembly?.validate(SIMD_MODULE)) return "WebAssembly with SIMD";
  if (!self.DecompressionStream) return "decompression of streams";
  if (!self.Worker) return "workers";
  return null;
}

export class LocalConnection extends Connection {
  constructor() {
    super();
    this.settings = new Settings(new URLSearchParams(location.search));
    this.recorder = null;
    const missing = missingFeature();
    if (missing === null) this.#open();
    else queueMicrotask(() => this.#fail(`This browser lacks ${missing}: use a current Chrome, Edge, Firefox or Safari.`));
  }

  send(message) {
    if (message.type === "record") this.#record(message.on);
    else if (message.type === "reset") this.worker?.postMessage({ ...message, seed: this.settings.seed });
    else this.worker?.postMessage(message);
  }

  #open() {
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#receive(data);
    this.worker.onerror = () => this.#fail("The engine cannot be started in this browser: use a current Chrome, Edge, Firefox or Safari.");
    const { start, seed, engine, threads, notice } = this.settings;
    if (notice) queueMicrotask(() => this.emit("message", { type: "error", error: notice }));
    const folder = new URL("./", document.baseURI).href;
    this.worker.postMessage({ type: "open", folder, start, seed, engine, threads });
  }

  #receive(message) {
    if (message.type === "frame") this.recorder?.add(message.image);
    if (["hello", "frame", "progress"].includes(message.type)) this.emit(message.type, message);
    else if (message.final) this.#fail(message.error);
    else this.emit("message", message);
  }

  #fail(error) {
    this.worker?.terminate();
    this.worker = null;
    this.recorder?.stop();
    this.emit("message", { type: "error", error, final: true });
    this.emit("closed");
  }

  async #record(on) {
    if (on) {
      try {
        this.recorder = new Recorder();
      } catch {
        this.emit("message", { type: "error", error: "This browser cannot record videos: use another one." });
        return;
      }
      this.emit("message", { type: "recording", on: true });
    } else if (this.recorder !== null) {
      const [video, recorder] = [await this.recorder.stop(), this.recorder];
      this.recorder = null;
      const url = video && URL.createObjectURL(video);
      this.emit("message", { type: "recording", on: false, url, extension: recorder.extension });
    }
  }
}

// What the address says: ?start=2&seed=7, and for measurements engine and threads.
class Settings {
  constructor(query) {
    this.notice = null;
    this.start = Number(this.#integer(query, "start", 2n ** 31n) ?? 0);
    this.givenSeed = this.#integer(query, "seed", MAX_SEED);
    this.engine = ENGINES.includes(query.get("engine")) ? query.get("engine") : null;
    this.threads = Number(this.#integer(query, "threads", 64n) ?? 0) || null;
  }

  // The seed of the next dream: the one in the address, otherwise a random one.
  get seed() {
    return String(this.givenSeed ?? Math.floor(NUM_RANDOM_SEEDS * Math.random()));
  }

  #integer(query, name, largest) {
    const text = query.get(name);
    if (text === null) return null;
    if (/^\d{1,19}$/.test(text) && BigInt(text) <= largest) return BigInt(text);
    this.notice = `${name} in the address must be a whole number from 0 to ${largest}: it is ignored.`;
    return null;
  }
}

export const connect = () => new LocalConnection();
