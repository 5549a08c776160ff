// An exported site: the list of its files, and the world in them.

import { World } from "./dream.js";
import { Files, readJson } from "./files.js";
import { readManifest } from "./manifest.js";
import { openGraphs } from "./runtime.js";
import { readSafetensors } from "./safetensors.js";

const FORMAT_VERSION = 1;

export class Site {
  // folder: URL of the site. onProgress(loaded, total): bytes of the files that are downloaded.
  static async open(folder, onProgress = () => {}) {
    const content = await readJson(new URL("site.json", folder));
    if (content.format_version > FORMAT_VERSION) throw new Error("The site is newer than its page: reload the page.");
    return new Site(content, new Files(folder, content.files, onProgress));
  }

  constructor(content, files) {
    this.content = content;
    this.files = files;
    this.weights = null;
  }

  // For each action component the keys of its low and its high end.
  get keys() {
    return this.content.keys;
  }

  // kind: "wasm" or "webgpu". onLoaded: called when everything is downloaded, and the graphs are prepared next.
  async loadWorld(kind, threads, onLoaded = () => {}) {
    const { manifest, starts, dynamics, decoder } = this.content.world;
    const names = [manifest, starts, dynamics, decoder, this.#binary(kind)];
    this.files.expect(names);
    const contents = await Promise.all(names.map((name) => this.files.read(name)));
    const content = readManifest(contents[0]);
    onLoaded();
    this.weights = { dynamics: contents[2], decoder: contents[3] };
    const graphs = await openGraphs(kind, threads, this.#module(kind), contents[4], this.weights);
    return new World(content, readSafetensors(contents[1]), graphs);
  }

  // Another runtime for the world that is loaded.
  async openGraphs(kind, threads) {
    this.files.expect([this.#binary(kind)]);
    const binary = await this.files.read(this.#binary(kind));
    return openGraphs(kind, threads, this.#module(kind), binary, this.weights);
  }

  #binary(kind) {
    return this.content.runtime[kind].binary;
  }

  #module(kind) {
    return new URL(this.content.runtime[kind].module, this.files.folder).href;
  }
}
