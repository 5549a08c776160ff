// What is on the page: the frame, the figures, the bars of the actions, the messages.

const NOTICE_MS = 6000;
const KEY_NAMES = { left: "←", right: "→", up: "↑", down: "↓" };
const COMMANDS = ["pause", "step", "reset", "record"];

const byId = (id) => document.getElementById(id);

export class View {
  constructor() {
    this.canvas = byId("screen");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.world = null;
    this.bars = [];
    this.numReceived = 0;
    this.lastDrawn = 0;
    this.noticeTimer = null;
  }

  setWorld(world) {
    this.world = world;
    byId("model").textContent = world.model;
    document.title = `${world.model} – Dreamer`;
    const [height, width] = world.frame_size;
    Object.assign(this.canvas, { width, height });
    this.canvas.style.setProperty("--ratio", width / height);
    byId("actions").replaceChildren();
    this.bars = world.actions.names.map((_, index) => new ActionBar(byId("actions"), world.actions, index));
  }

  async draw(header, image) {
    const number = ++this.numReceived;
    const bitmap = await createImageBitmap(image);
    // Images may be decoded out of order.
    if (number > this.lastDrawn) {
      this.lastDrawn = number;
      this.context.drawImage(bitmap, 0, 0);
    }
    bitmap.close();
    byId("frame").textContent = header.step;
    byId("start").textContent = `${header.start + 1} of ${this.world.num_starts}`;
    header.action.forEach((value, index) => this.bars[index].show(value));
  }

  setFigures(rate, latency) {
    const fps = Number(this.world.fps.toFixed(1));
    byId("rate").textContent = `${rate === null ? "–" : rate.toFixed(1)} of ${fps}/s`;
    byId("latency").textContent = latency === null ? "–" : `${Math.round(latency)} ms`;
  }

  // reason: why the dream waits; null while it plays.
  setState(reason, { canReconnect = false } = {}) {
    byId("message").textContent = reason ?? "Playing";
    byId("reconnect").hidden = !canReconnect;
    for (const id of ["state", "stage"]) byId(id).classList.toggle("waiting", reason !== null);
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

  setRecording(on, url) {
    byId("live").hidden = !on;
    byId("record").classList.toggle("on", on);
    byId("record").firstElementChild.textContent = on ? "Stop" : "Record";
    byId("download").hidden = !url;
    if (url) byId("download").href = url;
  }

  enable(enabled) {
    for (const id of COMMANDS) byId(id).disabled = !enabled;
  }
}

// One component of the action: its name and keys, a track that is filled from the resting value, and the value.
class ActionBar {
  constructor(container, { names, units, keys, low, high, rest }, index) {
    const row = container.appendChild(document.createElement("div"));
    row.className = "action";
    row.innerHTML =
      '<span class="name"></span><span class="keys"></span>' +
      '<div class="track"><div class="fill"></div><div class="mark"></div></div><span class="value"></span>';
    [this.fill, this.mark, this.value] = [".fill", ".mark", ".value"].map((part) => row.querySelector(part));
    const name = row.querySelector(".name");
    name.textContent = name.title = names[index];
    if (units?.[index]) name.appendChild(document.createElement("small")).textContent = ` ${units[index]}`;
    for (const key of keys[index] ?? []) {
      const label = KEY_NAMES[key] ?? key.toUpperCase();
      row.querySelector(".keys").appendChild(document.createElement("kbd")).textContent = label;
    }
    this.low = low[index];
    this.range = Math.max(high[index] - low[index], 1e-9);
    this.rest = this.#percent(rest[index]);
    this.decimals = Math.min(4, Math.max(0, 4 - Math.ceil(Math.log10(this.range))));
  }

  show(value) {
    const percent = this.#percent(value);
    this.fill.style.left = `${Math.min(percent, this.rest)}%`;
    this.fill.style.width = `${Math.abs(percent - this.rest)}%`;
    this.mark.style.left = `calc(${percent}% - ${(3 * percent) / 100}px)`; // 3 pixels wide, never cut off
    this.value.textContent = value.toFixed(this.decimals);
  }

  #percent(value) {
    return 100 * Math.min(1, Math.max(0, (value - this.low) / this.range));
  }
}
