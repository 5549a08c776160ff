// From the axes of an input device, in [-1, 1], to actions in the units of the data; the same as play/controls.py.

const SECONDS_ACROSS = 1.5; // of the world's time, for a stick to move a target across its range

const clip = (value, low, high) => Math.min(high, Math.max(low, value));

// Half a unit goes to the even neighbor, as in NumPy.
function roundToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

export class ActionSpace {
  // The actions of the manifest: a list with one entry for each component.
  constructor({ range_low: low, range_high: high, rest, relative, num_classes: numClasses }) {
    Object.assign(this, { low, high, rest, relative });
    this.discrete = numClasses.map((count) => count > 0);
    this.size = low.length;
  }

  valid(action) {
    return Float32Array.from(action, (value, i) => {
      const inside = clip(value, this.low[i], this.high[i]);
      return this.discrete[i] ? roundToEven(inside) : inside;
    });
  }
}

// A relative component is deflected: at rest it is `rest`, at its ends `low` and `high`. The others are targets, which a
// stick moves and a pointer sets.
class Control {
  constructor(space, fps, isPointer) {
    this.space = space;
    this.isPointer = isPointer;
    this.stepSize = space.low.map((low, i) => (space.high[i] - low) / (fps * SECONDS_ACROSS));
    this.target = [...space.rest];
  }

  action(axes) {
    const { low, high, rest, relative } = this.space;
    this.target = this.target.map((target, i) =>
      this.isPointer
        ? low[i] + ((axes[i] + 1) / 2) * (high[i] - low[i])
        : clip(target + axes[i] * this.stepSize[i], low[i], high[i]),
    );
    const deflected = (i) => rest[i] + axes[i] * (axes[i] < 0 ? rest[i] - low[i] : high[i] - rest[i]);
    return this.space.valid(this.target.map((target, i) => (relative[i] ? deflected(i) : target)));
  }

  resumeFrom(action) {
    this.target = [...this.space.valid(action)];
  }
}

// The stick and the pointer of one player.
export class Controls {
  constructor(space, fps) {
    this.stick = new Control(space, fps, false);
    this.pointer = new Control(space, fps, true);
    this.stickWasUsed = true;
  }

  // lastAction: the one that led to the frame that is shown.
  action({ axes, pointer }, lastAction) {
    if (!pointer && !this.stickWasUsed) this.stick.resumeFrom(lastAction);
    this.stickWasUsed = !pointer;
    return (pointer ? this.pointer : this.stick).action(axes);
  }

  resumeFrom(action) {
    this.stick.resumeFrom(action);
  }
}
