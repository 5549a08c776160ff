// The WebSocket: input out, frames in, and the time from the one to the other.

const NUM_TIMES = 20; // that averages are taken over

export class Connection extends EventTarget {
  // Events: hello (detail: the world), frame (detail: {header, image}), message (detail: any other message), closed.
  constructor() {
    super();
    const url = new URL("play", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = location.search; // token, start, seed, format
    this.imageType = `image/${new URLSearchParams(location.search).get("format") ?? "jpeg"}`;
    this.seq = 0;
    this.sentAt = new Map();
    this.latencies = [];
    this.arrivals = [];
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => this.#receive(event.data);
    this.socket.onclose = () => this.#emit("closed");
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

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

  // A frame is the length of its header (uint32, little-endian), the header (JSON), and an image file.
  #receive(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      this.#emit(message.type === "hello" ? "hello" : "message", message);
      return;
    }
    const headerLength = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, headerLength)));
    this.#measure(header.seq);
    const image = new Blob([new Uint8Array(data, 4 + headerLength)], { type: this.imageType });
    this.#emit("frame", { header, image });
  }

  #measure(seq) {
    const now = performance.now();
    this.arrivals = [...this.arrivals, now].slice(-NUM_TIMES);
    if (this.sentAt.has(seq)) this.latencies = [...this.latencies, now - this.sentAt.get(seq)].slice(-NUM_TIMES);
    for (const sent of this.sentAt.keys()) if (sent <= seq) this.sentAt.delete(sent);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
