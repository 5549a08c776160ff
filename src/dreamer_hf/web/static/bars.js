// What shows numbers on the page: a bar for each component of the action, and a gauge for each component of the state.

const SEPARATORS = /[./ ]/; // between the parts of a name
const KEY_NAMES = { left: "←", right: "→", up: "↑", down: "↓" };

// A value in its range: a name, a track that is filled up to the value, and the value.
class Bar {
  // parts: HTML between the name and the track. labels: what is shown of the names.
  constructor(container, kind, { names, units, low, high }, index, { parts = "", labels = names } = {}) {
    const row = container.appendChild(document.createElement("div"));
    row.className = kind;
    row.innerHTML =
      `<span class="name"></span>${parts}` +
      '<div class="track"><div class="fill"></div><div class="mark"></div></div><span class="value"></span>';
    [this.fill, this.mark, this.value] = [".fill", ".mark", ".value"].map((part) => row.querySelector(part));
    const name = row.querySelector(".name");
    name.textContent = labels[index];
    name.title = names[index];
    if (units?.[index]) name.appendChild(document.createElement("small")).textContent = ` ${units[index]}`;
    this.row = row;
    this.low = low[index];
    this.range = high[index] - low[index] || 1; // a component that never moved in the data has no range
    this.decimals = Math.min(4, Math.max(0, 4 - Math.ceil(Math.log10(this.range))));
  }

  // Where a value is in the range.
  percent(value) {
    return 100 * Math.min(1, Math.max(0, (value - this.low) / this.range));
  }

  // Fills the track from one place to another and puts the mark at the second one.
  draw(from, to, value) {
    this.fill.style.left = `${Math.min(from, to)}%`;
    this.fill.style.width = `${Math.abs(to - from)}%`;
    this.mark.style.left = `calc(${to}% - ${(3 * to) / 100}px)`; // 3 pixels wide, never cut off
    this.value.textContent = value.toFixed(this.decimals);
  }
}

// One component of the action, with its keys; the track is filled from the resting value.
export class ActionBar extends Bar {
  constructor(container, actions, index) {
    super(container, "action", actions, index, { parts: '<span class="keys"></span>' });
    for (const key of actions.keys[index] ?? []) {
      const label = KEY_NAMES[key] ?? key.toUpperCase();
      this.row.querySelector(".keys").appendChild(document.createElement("kbd")).textContent = label;
    }
    this.rest = this.percent(actions.rest[index]);
  }

  show(value) {
    this.draw(this.rest, this.percent(value), value);
  }
}

// One component of the state; the track is filled from the low end of the range in the training data.
export class Gauge extends Bar {
  constructor(container, state, index) {
    super(container, "gauge", state, index, { labels: withoutSharedEnds(state.names) });
  }

  // value: null where the dream has no number any more.
  show(value) {
    if (value !== null) this.draw(0, this.percent(value), value);
    else this.value.textContent = "–";
  }
}

// Names without the first and the last parts that all of them share, such as "arm." and ".pos".
export function withoutSharedEnds(names) {
  const parts = names.map((name) => name.split(SEPARATORS));
  const shortest = Math.min(...parts.map((each) => each.length));
  const shared = (at) => parts.every((each) => each.at(at) === parts[0].at(at));
  let [first, last] = [0, 0];
  if (names.length > 1) {
    while (first < shortest - 1 && shared(first)) first++;
    while (last < shortest - 1 - first && shared(-1 - last)) last++;
  }
  return parts.map((each) => each.slice(first, each.length - last).join(" "));
}
