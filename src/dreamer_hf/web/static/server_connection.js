// A dream on the server of this page, over a WebSocket.

import { Connection } from "./connection.js";

export class ServerConnection extends Connection {
  constructor() {
    super();
    const url = new URL("play", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = location.search; // token, start, seed, format
    this.imageType = `image/${new URLSearchParams(location.search).get("format") ?? "jpeg"}`;
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => this.#receive(event.data);
    this.socket.onclose = () => this.emit("closed");
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // A frame is the length of its header (uint32, little-endian), the header (JSON), and an image file.
  #receive(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      this.emit(message.type === "hello" ? "hello" : "message", message);
      return;
    }
    const headerLength = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, headerLength)));
    const image = new Blob([new Uint8Array(data, 4 + headerLength)], { type: this.imageType });
    this.emit("frame", { header, image });
  }
}

export const connect = () => new ServerConnection();
