// The WebSocket: messages out, frames in, and how long it takes from the one to the other.

const KEPT_TIMES = 20;

export class Connection extends EventTarget {
  // Events: hello (detail: the world), frame ({header, picture}), said (any other message), closed.
  constructor() {
    super();
    const address = new URL("play", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = location.search;  // token, start, seed, format
    this.pictureType = `image/${new URLSearchParams(location.search).get("format") || "jpeg"}`;
    this.seq = 0;
    this.sentAt = new Map();
    this.latencies = [];
    this.arrivals = [];
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => this.#hear(event.data);
    this.socket.onclose = () => this.#tell("closed");
  }

  send(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify(message));
  }

  sendHand(axes, pointer) {
    this.seq += 1;
    this.sentAt.set(this.seq, performance.now());
    this.send({ type: "hand", axes, pointer, seq: this.seq });
  }

  close() {
    this.socket.onclose = null;
    this.socket.close();
  }

  // Milliseconds from a hand to the first picture that shows it: the median of the last ones; null before there is one.
  get latency() {
    if (this.latencies.length === 0) return null;
    return [...this.latencies].sort((a, b) => a - b)[this.latencies.length >> 1];
  }

  // Frames a second over the last ones; null before there are enough, and after a second without any.
  get rate() {
    const times = this.arrivals;
    if (times.length < 6 || performance.now() - times.at(-1) > 1000) return null;
    return (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  }

  #hear(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      this.#tell(message.type === "hello" ? "hello" : "said", message);
      return;
    }
    const headerLength = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, headerLength)));
    this.#measure(header.seq);
    const picture = new Blob([new Uint8Array(data, 4 + headerLength)], { type: this.pictureType });
    this.#tell("frame", { header, picture });
  }

  #measure(seq) {
    const now = performance.now();
    this.arrivals = [...this.arrivals, now].slice(-KEPT_TIMES);
    if (this.sentAt.has(seq)) this.latencies = [...this.latencies, now - this.sentAt.get(seq)].slice(-KEPT_TIMES);
    for (const sent of this.sentAt.keys()) if (sent <= seq) this.sentAt.delete(sent);
  }

  // A pause is no slow frame.
  forgetTimes() {
    this.arrivals = [];
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
