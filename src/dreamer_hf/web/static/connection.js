// What a game talks to, whether the dream runs on a server or in this browser: input out, frames in, and the time from
// the one to the other.
//
// Events: hello (detail: the world), frame (detail: {header, image}, an image file or the pixels), message (detail: any
// other message), progress (detail: {loaded, total} bytes, or {preparing}), closed.

const NUM_TIMES = 20; // that averages are taken over

export class Connection extends EventTarget {
  constructor() {
    super();
    this.seq = 0;
    this.sentAt = new Map();
    this.latencies = [];
    this.arrivals = [];
  }

  // Subclasses: send(message), close().

  sendInput({ axes, pointer }) {
    this.seq += 1;
    this.sentAt.set(this.seq, performance.now());
    this.send({ type: "input", axes, pointer, seq: this.seq });
  }

  // Milliseconds from an input to the first frame that shows its effect: the median of the last ones; null before there is one.
  get latency() {
    if (this.latencies.length === 0) return null;
    return [...this.latencies].sort((a, b) => a - b)[this.latencies.length >> 1];
  }

  // Frames per second over the last ones; null before there are enough, and after a second without any.
  get rate() {
    const times = this.arrivals;
    if (times.length < 6 || performance.now() - times.at(-1) > 1000) return null;
    return (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  }

  // Keeps a pause from counting as a slow frame.
  forgetArrivals() {
    this.arrivals = [];
  }

  emit(type, detail) {
    if (type === "frame") this.#measure(detail.header.seq);
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #measure(seq) {
    const now = performance.now();
    this.arrivals = [...this.arrivals, now].slice(-NUM_TIMES);
    if (this.sentAt.has(seq)) this.latencies = [...this.latencies, now - this.sentAt.get(seq)].slice(-NUM_TIMES);
    for (const sent of this.sentAt.keys()) if (sent <= seq) this.sentAt.delete(sent);
  }
}
