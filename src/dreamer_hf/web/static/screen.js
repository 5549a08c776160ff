// The canvas of the dream: the image of one camera, or those of several next to each other, with their names.
//
// Frames come with the cameras in one row. Where several rows make the views much larger, they are drawn in rows.

const MIN_GAIN = 1.2; // in size, for which the views leave their row
const VIEWS_PER_GAP = 64; // a gap between views is this part of a view's width

export class Screen {
  // stage: the element around `views`, which holds the canvas and the names of the cameras.
  constructor(stage, views, canvas, names) {
    Object.assign(this, { stage, views, canvas, names });
    this.context = canvas.getContext("2d", { alpha: false });
    this.bitmap = null;
    this.numCameras = this.columns = 1;
    this.view = [1, 1]; // width and height of one camera, in pixels of the dream
    new ResizeObserver(() => this.#arrange()).observe(stage);
  }

  // cameras: their names, or null for one. frame_size: height and width of a frame, with all cameras side by side.
  setWorld({ frame_size: [height, width], cameras }) {
    this.numCameras = cameras?.length ?? 1;
    this.view = [width / this.numCameras, height];
    this.names.hidden = this.numCameras === 1;
    this.names.replaceChildren(
      ...(cameras ?? []).map((name) => {
        const entry = document.createElement("li");
        entry.appendChild(document.createElement("span")).textContent = name;
        return entry;
      }),
    );
    this.bitmap = null;
    this.columns = 0; // not arranged
    this.#arrange();
  }

  // Draws a frame, an ImageBitmap, and keeps it until the next one.
  show(bitmap) {
    this.bitmap?.close();
    this.bitmap = bitmap;
    this.#draw();
  }

  // position: on the canvas, from [-1, -1] at the upper left to [1, 1]. Returns the position within the view there.
  locate(position) {
    const [width, height] = this.view;
    const [rows, gap] = [this.#rows(this.columns), this.#gap];
    const within = (value, count, side) => {
      const pixels = ((value + 1) / 2) * (count * side + (count - 1) * gap);
      const index = Math.min(count - 1, Math.floor(pixels / (side + gap)));
      return Math.min(1, Math.max(-1, (2 * (pixels - index * (side + gap))) / side - 1));
    };
    return [within(position[0], this.columns, width), within(position[1], rows, height)];
  }

  get #gap() {
    return this.numCameras === 1 ? 0 : Math.max(1, Math.round(this.view[0] / VIEWS_PER_GAP));
  }

  #rows(columns) {
    return Math.ceil(this.numCameras / columns);
  }

  // Width and height of the canvas.
  #size(columns) {
    const [width, height] = this.view;
    const rows = this.#rows(columns);
    return [columns * width + (columns - 1) * this.#gap, rows * height + (rows - 1) * this.#gap];
  }

  #arrange() {
    const columns = this.#bestColumns();
    if (columns === this.columns) return;
    this.columns = columns;
    const [width, height] = this.#size(columns);
    Object.assign(this.canvas, { width, height });
    this.views.style.setProperty("--ratio", width / height);
    this.views.style.setProperty("--columns", columns);
    this.#draw();
  }

  #bestColumns() {
    const { clientWidth, clientHeight } = this.stage;
    const scale = (columns) => {
      const [width, height] = this.#size(columns);
      return Math.min(clientWidth / width, clientHeight / height);
    };
    let best = this.numCameras;
    for (let rows = 2; rows <= this.numCameras; rows++) {
      const columns = Math.ceil(this.numCameras / rows); // rows of about the same length
      if (scale(columns) > MIN_GAIN * scale(best)) best = columns;
    }
    return best;
  }

  #draw() {
    const { context, canvas, bitmap, columns } = this;
    const [width, height] = this.view;
    if (this.numCameras > 1) {
      context.fillStyle = getComputedStyle(canvas).getPropertyValue("--line");
      context.fillRect(0, 0, canvas.width, canvas.height);
    }
    if (bitmap === null) return;
    for (let camera = 0; camera < this.numCameras; camera++) {
      const [x, y] = [(camera % columns) * (width + this.#gap), Math.floor(camera / columns) * (height + this.#gap)];
      context.drawImage(bitmap, camera * width, 0, width, height, x, y, width, height);
    }
  }
}
