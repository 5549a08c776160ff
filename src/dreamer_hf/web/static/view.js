// What is on the page: the frame, the figures, the bars of the actions, the gauges of state and trust, the messages.

import { ActionBar, Gauge } from "./bars.js";
import { Screen } from "./screen.js";

const NOTICE_MS = 6000;
const TRUST = { names: ["trust"], low: [0], high: [1] }; // how far a frame can be believed, as a component of a state
const COMMANDS = ["pause", "step", "rewind", "reset", "record"];

const byId = (id) => document.getElementById(id);

export class View {
  constructor() {
    this.screen = new Screen(...["stage", "views", "screen", "cameras"].map(byId));
    this.world = null;
    this.bars = [];
    this.gauges = [];
    this.trust = null;
    this.numReceived = 0;
    this.lastDrawn = 0;
    this.noticeTimer = null;
  }

  // onPick: called with the number of the start that the player chooses.
  setWorld(world, onPick) {
    this.world = world;
    byId("rewind").hidden = !world.can_rewind;
    byId("model").textContent = world.model;
    document.title = `${world.model} – Dreamer`;
    this.screen.setWorld(world);
    byId("actions").replaceChildren();
    this.bars = world.actions.names.map((_, index) => new ActionBar(byId("actions"), world.actions, index));
    byId("gauges").hidden = !world.state && !world.trust;
    byId("gauges").replaceChildren();
    this.gauges = (world.state?.names ?? []).map((_, index) => new Gauge(byId("gauges"), world.state, index));
    this.trust = world.trust ? new Gauge(byId("gauges"), TRUST, 0) : null;
    this.#showStarts(world.thumbnails ?? [], onPick);
    if (world.engine) byId("engine").textContent = describeEngine(world.engine);
  }

  // images: the last frame of each start.
  #showStarts(images, onPick) {
    byId("starts").hidden = images.length < 2;
    const buttons = images.map((image, start) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", title: `Start ${start + 1}` });
      const canvas = button.appendChild(document.createElement("canvas"));
      Object.assign(canvas, { width: image.width, height: image.height });
      canvas.getContext("2d").putImageData(image, 0, 0);
      button.addEventListener("click", () => {
        button.blur();
        onPick(start);
      });
      return button;
    });
    byId("starts").replaceChildren(...buttons);
  }

  async draw(header, image) {
    const number = ++this.numReceived;
    const bitmap = await createImageBitmap(image);
    // Images may be decoded out of order.
    if (number > this.lastDrawn) {
      this.lastDrawn = number;
      this.screen.show(bitmap);
    } else bitmap.close();
    byId("frame").textContent = header.step;
    byId("start").textContent = `${header.start + 1} of ${this.world.num_starts}`;
    [...byId("starts").children].forEach((button, start) => button.classList.toggle("on", start === header.start));
    const seed = byId("seed");
    seed.textContent = header.seed;
    const query = new URLSearchParams(location.search);
    query.set("start", header.start);
    query.set("seed", header.seed);
    seed.href = `?${query}`;
    header.action.forEach((value, index) => this.bars[index].show(value));
    header.state?.forEach((value, index) => this.gauges[index].show(value));
    this.trust?.show(header.trust);
  }

  setFigures(rate, latency) {
    const fps = Number(this.world.fps.toFixed(1));
    byId("rate").textContent = `${rate === null ? "–" : rate.toFixed(1)} of ${fps}/s`;
    byId("latency").textContent = latency === null ? "–" : `${Math.round(latency)} ms`;
  }

  // reason: why the dream waits; null while it plays. button: what the player can do about it.
  setState(reason, { button = null } = {}) {
    byId("message").textContent = reason ?? "Playing";
    byId("progress").hidden = true;
    byId("reconnect").hidden = button === null;
    byId("reconnect").textContent = button;
    for (const id of ["state", "stage"]) byId(id).classList.toggle("waiting", reason !== null);
  }

  setProgress({ loaded, total, preparing }) {
    byId("message").textContent = preparing ? "Preparing the world …" : `Loading ${megabytes(loaded)} of ${megabytes(total)} MB`;
    byId("progress").hidden = false;
    if (preparing) byId("progress").removeAttribute("value");
    else Object.assign(byId("progress"), { max: total, value: loaded });
  }

  notify(text) {
    clearTimeout(this.noticeTimer);
    byId("notice").textContent = text;
    byId("notice").hidden = false;
    this.noticeTimer = setTimeout(() => (byId("notice").hidden = true), NOTICE_MS);
  }

  setPaused(paused) {
    byId("pause").firstElementChild.textContent = paused ? "Continue" : "Pause";
  }

  setRecording(on, url, extension = "mp4") {
    byId("live").hidden = !on;
    byId("record").classList.toggle("on", on);
    byId("record").firstElementChild.textContent = on ? "Stop" : "Record";
    byId("download").hidden = !url;
    if (!url) return;
    const name = `dream.${extension}`;
    Object.assign(byId("download"), { href: url, download: name, textContent: `Download ${name}` });
  }

  enable(enabled) {
    for (const id of COMMANDS) byId(id).disabled = !enabled;
  }
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

function describeEngine({ kind, threads }) {
  const where = kind === "webgpu" ? "on the graphics card" : `on ${threads === 1 ? "one thread" : `${threads} threads`}`;
  return `The dream runs in this browser, ${where}.`;
}
