// Records the frames of a dream as a video, in the format that this browser can write.

const FORMATS = [
  ["video/mp4;codecs=avc1", "mp4"],
  ["video/webm;codecs=vp9", "webm"],
  ["video/webm", "webm"],
  ["video/mp4", "mp4"],
];
const MIN_WIDTH = 512; // small frames are enlarged, without smoothing, so that compression does not blur them
const BITS_PER_SECOND = 6e6;

export class Recorder {
  // Throws if this browser records no video.
  constructor() {
    const [type, extension] = FORMATS.find(([type]) => MediaRecorder.isTypeSupported(type));
    this.extension = extension;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.recorder = new MediaRecorder(this.canvas.captureStream(), { mimeType: type, videoBitsPerSecond: BITS_PER_SECOND });
    this.chunks = [];
    this.recorder.ondataavailable = ({ data }) => this.chunks.push(data);
  }

  // image: ImageData.
  async add(image) {
    const bitmap = await createImageBitmap(image);
    const scale = Math.max(1, Math.ceil(MIN_WIDTH / image.width));
    const [width, height] = [image.width * scale, image.height * scale];
    if (this.recorder.state === "inactive" && this.chunks.length === 0) Object.assign(this.canvas, { width, height });
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    if (this.recorder.state === "inactive" && !this.stopped) this.recorder.start();
  }

  // Returns the video, or null without a frame.
  async stop() {
    this.stopped = true;
    if (this.recorder.state === "inactive") return null;
    const ended = new Promise((resolve) => (this.recorder.onstop = resolve));
    this.recorder.stop();
    await ended;
    return new Blob(this.chunks, { type: this.recorder.mimeType.split(";")[0] });
  }
}
