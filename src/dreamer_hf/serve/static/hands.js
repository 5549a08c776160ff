// Keyboard, gamepad, touch pads and the pointer on the picture, as axes in [-1, 1], one for each action.

const ARROWS = { left: "ArrowLeft", right: "ArrowRight", up: "ArrowUp", down: "ArrowDown" };
const DEAD_ZONE = 0.12;
const clamp = (value) => Math.min(1, Math.max(-1, value));
const named = (key) => ARROWS[key] || key;

export class Keyboard {
  // pairs: for each action the keys of its low and its high end; tapMs: how long a tap counts, so that none is lost
  // between two frames.
  constructor(pairs, tapMs, changed) {
    this.pairs = pairs.map((pair) => pair.map(named));
    this.known = new Set(this.pairs.flat());
    this.held = new Set();
    this.tapMs = tapMs;
    this.pressedAt = new Map();
    this.changed = changed;
  }

  down(key) {
    const name = this.#name(key);
    if (!this.known.has(name)) return false;
    if (!this.held.has(name)) this.pressedAt.set(name, performance.now());
    this.held.add(name);
    this.changed();
    return true;
  }

  up(key) {
    const name = this.#name(key);
    const left = (this.pressedAt.get(name) ?? 0) + this.tapMs - performance.now();
    const pressedAt = this.pressedAt.get(name);
    setTimeout(() => {
      if (this.pressedAt.get(name) !== pressedAt) return;  // pressed again
      this.held.delete(name);
      this.changed();
    }, Math.max(0, left));
  }

  release() {
    this.held.clear();
    this.changed();
  }

  axes() {
    return this.pairs.map(([low, high]) => this.held.has(high) - this.held.has(low));
  }

  #name(key) {
    return key.length === 1 ? key.toLowerCase() : key;
  }
}

export class Gamepads {
  // Order of the axes as in the play window: sticks, triggers, hat, bumpers. Where a stick rests when it is plugged in
  // is its zero.
  constructor(pressed) {
    this.rest = null;
    this.buttons = [];
    this.pressed = pressed;  // called with the number of a button that has just been pressed
  }

  pad() {
    return [...(navigator.getGamepads?.() ?? [])].find((pad) => pad?.connected) ?? null;
  }

  poll() {
    const pad = this.pad();
    if (pad === null) {
      this.rest = null;
      return [];
    }
    this.rest ??= [...pad.axes];
    const value = (index) => pad.buttons[index]?.value ?? 0;
    const now = pad.buttons.map((button) => button.pressed);
    now.forEach((down, index) => down && !this.buttons[index] && this.pressed(index));
    this.buttons = now;
    const sticks = pad.axes.map((axis, index) => axis - (this.rest[index] ?? 0));
    const rest = [value(7) - value(6), value(15) - value(14), value(13) - value(12), value(5) - value(4)];
    return [...sticks, ...rest].map(outsideDeadZone);
  }
}

function outsideDeadZone(value) {
  const beyond = Math.abs(value) - DEAD_ZONE;
  return beyond <= 0 ? 0 : clamp((Math.sign(value) * beyond) / (1 - DEAD_ZONE));
}

// A place in an element, from -1 (left, top) to 1 (right, bottom).
function placeIn(element, event) {
  const box = element.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  return [clamp(2 * x - 1), clamp(2 * y - 1)];
}

// Calls moved([x, y]) while a finger or a mouse button is down on the element, and moved(null) when it is lifted.
export function followPointer(element, moved) {
  let current = null;
  const end = (event) => {
    if (event.pointerId !== current) return;
    current = null;
    moved(null);
  };
  element.addEventListener("pointerdown", (event) => {
    if (current !== null || event.button > 0) return;
    event.preventDefault();
    current = event.pointerId;
    element.setPointerCapture(current);
    moved(placeIn(element, event));
  });
  element.addEventListener("pointermove", (event) => event.pointerId === current && moved(placeIn(element, event)));
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(name, end);
}

export class TouchPad {
  // One round pad for two actions (or one).
  constructor(container, labels, changed) {
    this.place = [0, 0];
    const pad = container.appendChild(document.createElement("div"));
    pad.className = "pad";
    labels.forEach((label, index) => {
      const words = pad.appendChild(document.createElement("span"));
      words.className = ["across", "along"][index];
      words.textContent = `${["↔", "↕"][index]} ${label}`;
    });
    const knob = pad.appendChild(document.createElement("div"));
    knob.className = "knob";
    followPointer(pad, (place) => {
      const [x, y] = place ?? [0, 0], length = Math.max(1, Math.hypot(x, y));
      this.place = [x / length, y / length].slice(0, labels.length);
      const reach = (pad.clientWidth - knob.offsetWidth) / 2;
      const [right, down] = [(reach * x) / length, labels.length > 1 ? (reach * y) / length : 0];
      knob.style.transform = `translate(${right}px, ${down}px)`;
      changed();
    });
  }
}

// The sum of what all devices say, as many numbers as there are actions.
export function sumAxes(size, ...devices) {
  return Array.from({ length: size }, (_, index) =>
    clamp(devices.reduce((sum, axes) => sum + (axes[index] ?? 0), 0)),
  );
}
