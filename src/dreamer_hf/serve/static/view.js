// What is seen: the picture, the figures, the bars of the actions, the words.

const byId = (id) => document.getElementById(id);
const KEY_NAMES = { left: "←", right: "→", up: "↑", down: "↓" };

export class View {
  constructor() {
    this.canvas = byId("picture");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.drawn = 0;
    this.asked = 0;
  }

  show(world) {
    this.world = world;
    byId("model").textContent = world.model;
    document.title = `Dream of ${world.model}`;
    [this.canvas.height, this.canvas.width] = world.frame_size;
    byId("actions").replaceChildren();
    this.bars = world.actions.names.map((name, index) => this.#bar(name, index));
  }

  async draw(header, picture) {
    const number = ++this.asked;
    const bitmap = await createImageBitmap(picture);
    if (number > this.drawn) {  // pictures may be decoded out of order
      this.drawn = number;
      this.context.drawImage(bitmap, 0, 0);
    }
    bitmap.close();
    byId("frame").textContent = header.step;
    byId("start").textContent = `${header.start + 1} of ${this.world.num_starts}`;
    header.action.forEach((value, index) => this.bars[index](value));
  }

  figures(rate, latency) {
    const fps = Number(this.world.fps.toFixed(1));
    byId("rate").textContent = `${rate === null ? "–" : rate.toFixed(1)} of ${fps}/s`;
    byId("latency").textContent = latency === null ? "–" : `${Math.round(latency)} ms`;
  }

  // Why the dream waits; null: it does not. again: only a new connection helps.
  state(words, again = false) {
    byId("words").textContent = words ?? "Playing";
    byId("again").hidden = !again;
    for (const id of ["state", "stage"]) byId(id).classList.toggle("waits", words !== null);
  }

  notice(words) {
    byId("notice").hidden = words === null;
    byId("notice").textContent = words ?? "";
    clearTimeout(this.noticeTimer);
    if (words !== null) this.noticeTimer = setTimeout(() => this.notice(null), 6000);
  }

  paused(paused) {
    byId("pause").firstElementChild.textContent = paused ? "Go on" : "Pause";
  }

  recording(on, url) {
    byId("live").hidden = !on;
    byId("record").classList.toggle("on", on);
    byId("record").firstElementChild.textContent = on ? "Stop" : "Record";
    byId("download").hidden = !url;
    if (url) byId("download").href = url;
  }

  enable(enabled) {
    for (const id of ["pause", "step", "reset", "record"]) byId(id).disabled = !enabled;
  }

  // One action: name, keys, a track filled from where the hand rests, the value. Returns what shows a value.
  #bar(name, index) {
    const { low, high, rest, units, keys } = this.world.actions;
    const row = byId("actions").appendChild(document.createElement("div"));
    row.className = "action";
    row.innerHTML =
      '<span class="name"></span><span class="keys"></span>' +
      '<div class="track"><div class="fill"></div><div class="here"></div></div><span class="value"></span>';
    const label = row.querySelector(".name");
    label.textContent = name;
    if (units?.[index]) label.appendChild(document.createElement("small")).textContent = ` ${units[index]}`;
    for (const key of keys[index] ?? []) {
      row.querySelector(".keys").appendChild(document.createElement("kbd")).textContent =
        KEY_NAMES[key] ?? key.toUpperCase();
    }
    const width = Math.max(high[index] - low[index], 1e-9);
    const decimals = Math.min(4, Math.max(0, 4 - Math.ceil(Math.log10(width))));
    const fraction = (value) => Math.min(1, Math.max(0, (value - low[index]) / width)) * 100;
    const [fill, here, words] = [".fill", ".here", ".value"].map((part) => row.querySelector(part));
    return (value) => {
      const [from, to] = [fraction(rest[index]), fraction(value)].sort((a, b) => a - b);
      fill.style.left = `${from}%`;
      fill.style.width = `${to - from}%`;
      here.style.left = `calc(${fraction(value)}% - ${(3 * fraction(value)) / 100}px)`;  // 3 pixels wide, never cut off
      words.textContent = value.toFixed(decimals);
    };
  }
}
