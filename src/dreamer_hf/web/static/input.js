// Input devices: keyboard, gamepad, touch pads and the pointer on the image, combined into one number in [-1, 1] for
// each action component. Nothing here knows where the frames come from, so that any page with a dream can use it.

const ARROWS = { left: "ArrowLeft", right: "ArrowRight", up: "ArrowUp", down: "ArrowDown" };
const DEAD_ZONE = 0.12;
const COMPONENTS_PER_PAD = 2;
const MAX_PADS = 2; // one for each thumb

const clamp = (value) => Math.min(1, Math.max(-1, value));

export class PlayerInput {
  // screen: the element on which the pointer is a position. locate: returns the position within the view at a position.
  // pads: the element that the touch pads are put into.
  // onChange: called when a device has changed (except a gamepad, which has to be read again and again).
  // onButton: called with the number of a gamepad button that was just pressed.
  constructor({ screen, locate, pads, onChange, onButton }) {
    this.container = pads;
    this.onChange = onChange;
    this.gamepad = new Gamepad(onButton);
    this.position = null;
    this.setActions({ names: [], keys: [], tapMs: 0 });
    followPointer(screen, (position) => {
      this.position = position && locate(position);
      onChange();
    });
  }

  // names: of the action components; keys: for each component the keys of its low and its high end;
  // tapMs: how long a tap counts at least, so that none is lost between two frames.
  setActions({ names, keys, tapMs }) {
    this.size = names.length;
    this.keyboard = new Keyboard(keys, tapMs, this.onChange);
    this.container.replaceChildren();
    this.pads = [];
    for (let first = 0; first < names.length && this.pads.length < MAX_PADS; first += COMPONENTS_PER_PAD) {
      const labels = names.slice(first, first + COMPONENTS_PER_PAD);
      this.pads.push(new TouchPad(this.container, labels, this.onChange));
    }
  }

  // pointer: whether the axes are a position on the screen rather than the deflection of a stick.
  read() {
    if (this.position !== null) return { axes: this.#sum([this.position]), pointer: true };
    const pads = this.pads.flatMap((pad) => pad.axes);
    return { axes: this.#sum([this.keyboard.axes(), this.gamepad.axes(), pads]), pointer: false };
  }

  #sum(devices) {
    return Array.from({ length: this.size }, (_, index) =>
      clamp(devices.reduce((sum, axes) => sum + (axes[index] ?? 0), 0)),
    );
  }
}

class Keyboard {
  constructor(pairs, tapMs, onChange) {
    this.pairs = pairs.map((pair) => pair.map((key) => ARROWS[key] ?? key));
    this.known = new Set(this.pairs.flat());
    this.held = new Set();
    this.pressedAt = new Map();
    this.tapMs = tapMs;
    this.onChange = onChange;
  }

  // Returns whether the key belongs to an action.
  down(key) {
    const name = normalKey(key);
    if (!this.known.has(name)) return false;
    if (!this.held.has(name)) this.pressedAt.set(name, performance.now());
    this.held.add(name);
    this.onChange();
    return true;
  }

  up(key) {
    const name = normalKey(key);
    const pressedAt = this.pressedAt.get(name);
    const remaining = (pressedAt ?? 0) + this.tapMs - performance.now();
    setTimeout(() => {
      if (this.pressedAt.get(name) !== pressedAt) return; // pressed again
      this.held.delete(name);
      this.onChange();
    }, Math.max(0, remaining));
  }

  release() {
    this.held.clear();
    this.onChange();
  }

  axes() {
    return this.pairs.map(([low, high]) => this.held.has(high) - this.held.has(low));
  }
}

// A letter is the same key with and without shift.
export function normalKey(key) {
  return key.length === 1 ? key.toLowerCase() : key;
}

// The order of the axes is that of the play window: sticks, triggers, hat, bumpers. The position in which a stick is
// first seen counts as zero.
class Gamepad {
  constructor(onButton) {
    this.onButton = onButton;
    this.rest = null;
    this.buttons = [];
  }

  axes() {
    const pad = [...(navigator.getGamepads?.() ?? [])].find((each) => each?.connected);
    if (pad === undefined) {
      this.rest = null;
      return [];
    }
    this.#reportButtons(pad);
    this.rest ??= [...pad.axes];
    const difference = (high, low) => (pad.buttons[high]?.value ?? 0) - (pad.buttons[low]?.value ?? 0);
    const sticks = pad.axes.map((axis, index) => axis - (this.rest[index] ?? 0));
    const [triggers, hatX, hatY, bumpers] = [difference(7, 6), difference(15, 14), difference(13, 12), difference(5, 4)];
    return [...sticks, triggers, hatX, hatY, bumpers].map(outsideDeadZone);
  }

  #reportButtons(pad) {
    const pressed = pad.buttons.map((button) => button.pressed);
    pressed.forEach((isDown, index) => isDown && !this.buttons[index] && this.onButton(index));
    this.buttons = pressed;
  }
}

function outsideDeadZone(value) {
  const excess = Math.max(0, Math.abs(value) - DEAD_ZONE);
  return clamp((Math.sign(value) * excess) / (1 - DEAD_ZONE));
}

// A round pad for one or two components.
class TouchPad {
  constructor(container, labels, onChange) {
    this.axes = labels.map(() => 0);
    const pad = container.appendChild(document.createElement("div"));
    pad.className = "pad";
    labels.forEach((label, index) => {
      const text = pad.appendChild(document.createElement("span"));
      text.className = ["across", "along"][index];
      text.textContent = `${["↔", "↕"][index]} ${label}`;
    });
    const knob = pad.appendChild(document.createElement("div"));
    knob.className = "knob";
    followPointer(pad, (position) => {
      const [x, y] = position ?? [0, 0];
      const length = Math.max(1, Math.hypot(x, y));
      this.axes = [x / length, y / length].slice(0, labels.length);
      const reach = (pad.clientWidth - knob.offsetWidth) / 2;
      const [right, down] = [this.axes[0], this.axes[1] ?? 0].map((axis) => reach * axis);
      knob.style.transform = `translate(${right}px, ${down}px)`;
      onChange();
    });
  }
}

// Calls onMove([x, y]) while a finger or a mouse button is down on the element, and onMove(null) when it is lifted.
// The position is -1 at the left and at the top, 1 at the right and at the bottom.
function followPointer(element, onMove) {
  let current = null;
  const move = (event) => {
    const box = element.getBoundingClientRect();
    const fractions = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    onMove(fractions.map((fraction) => clamp(2 * fraction - 1)));
  };
  const end = (event) => {
    if (event.pointerId !== current) return;
    current = null;
    onMove(null);
  };
  element.addEventListener("pointerdown", (event) => {
    if (current !== null || event.button > 0) return;
    event.preventDefault();
    current = event.pointerId;
    element.setPointerCapture(current);
    move(event);
  });
  element.addEventListener("pointermove", (event) => event.pointerId === current && move(event));
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(name, end);
}
