// Draws the photo with what is laid over it. It is told what to show; it decides nothing.

import { scaleOf } from "./geometry.js";
import { layersOf } from "./mask.js";

const INCLUDE = "#2f9e6e";
const EXCLUDE = "#d64545";

export class Stage {
  #canvas;
  #context;
  #photo = null;
  #mask = null; // the mask that is wanted
  #layers = null; // its pictures, once painted
  #selected = false; // false: the mask only follows the pointer
  #prompt = { points: [], box: null };
  #draft = null; // the box being dragged
  #cross = null; // where the keyboard points
  #preview = null; // {bitmap, box} of the completion under way
  #working = false;
  #frame = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    new ResizeObserver(() => this.#fit()).observe(canvas);
    // The ratio changes without a resize when the window moves to another screen.
    window.addEventListener("resize", () => this.#fit());
  }

  get size() {
    return this.#photo?.size ?? null;
  }

  open(photo) {
    this.#photo = photo;
    this.#mask = this.#layers = this.#draft = this.#cross = null;
    this.#canvas.closest("#desk").style.setProperty("--ratio", photo.size.width / photo.size.height);
    this.work(false);
    this.#fit();
  }

  async select({ mask, prompt, busy }) {
    this.#prompt = prompt;
    this.#selected = !prompt.isEmpty;
    this.#canvas.toggleAttribute("data-busy", busy);
    this.#draw();
    if (mask === this.#mask) return;
    this.#mask = mask;
    const layers = mask && (await layersOf(mask));
    if (mask !== this.#mask) return; // a newer mask came while this one was painted
    this.#layers = layers;
    this.#draw();
  }

  draft(box) {
    this.#draft = box;
    this.#draw();
  }

  cross(point) {
    this.#cross = point;
    this.#draw();
  }

  /** Dims the photo while a completion runs; its previews are drawn in place. */
  work(working) {
    this.#working = working;
    if (!working) this.#preview = null;
    this.#draw();
  }

  async preview({ png, box }) {
    const bitmap = await createImageBitmap(png);
    if (!this.#working) return;
    this.#preview = { bitmap, box };
    this.#draw();
  }

  #fit() {
    const { clientWidth, clientHeight } = this.#canvas;
    const width = Math.round(clientWidth * devicePixelRatio);
    const height = Math.round(clientHeight * devicePixelRatio);
    if (!width || !height || (width === this.#canvas.width && height === this.#canvas.height)) return this.#draw();
    Object.assign(this.#canvas, { width, height }); // also clears it
    this.#paint();
  }

  #draw() {
    this.#frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (!this.#photo) return;
    const { width, height } = this.#canvas;
    const context = this.#context;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#photo.bitmap, 0, 0, width, height);
    if (this.#working) this.#paintWork();
    else this.#paintMask();
    if (this.#working) return;
    if (this.#prompt.box) this.#paintBox(this.#prompt.box, false);
    if (this.#draft) this.#paintBox(this.#draft, true);
    for (const point of this.#prompt.points) this.#paintPoint(point);
    if (this.#cross) this.#paintCross(this.#cross);
  }

  #paintMask() {
    if (!this.#layers) return;
    if (this.#selected) this.#paintLayer(this.#layers.surroundings, 0.42);
    this.#paintLayer(this.#layers.fill, this.#selected ? 0.3 : 0.45);
    this.#paintLayer(this.#layers.outline, this.#selected ? 0.95 : 0.7);
  }

  #paintWork() {
    const { width, height } = this.#canvas;
    this.#context.fillStyle = "rgb(0 0 0 / 62%)";
    this.#context.fillRect(0, 0, width, height);
    if (this.#preview) {
      const { bitmap, box } = this.#preview;
      const { x, y } = scaleOf(this.#canvas, this.#photo.size);
      this.#context.drawImage(bitmap, box.x_min * x, box.y_min * y, (box.x_max - box.x_min) * x, (box.y_max - box.y_min) * y);
    }
    if (this.#layers) this.#paintLayer(this.#layers.outline, this.#preview ? 0.35 : 0.9);
  }

  #paintLayer(layer, alpha) {
    this.#context.globalAlpha = alpha;
    this.#context.drawImage(layer, 0, 0, this.#canvas.width, this.#canvas.height);
    this.#context.globalAlpha = 1;
  }

  #paintBox(box, draft) {
    const { x, y } = scaleOf(this.#canvas, this.#photo.size);
    const rectangle = [box.x_min * x, box.y_min * y, (box.x_max - box.x_min) * x, (box.y_max - box.y_min) * y];
    this.#stroke(() => this.#context.strokeRect(...rectangle), draft ? [6, 4] : []);
  }

  #paintPoint({ x, y, label }) {
    const context = this.#context;
    const scale = scaleOf(this.#canvas, this.#photo.size);
    const [cx, cy, r] = [x * scale.x, y * scale.y, 7 * devicePixelRatio];
    context.fillStyle = label === "include" ? INCLUDE : EXCLUDE;
    context.strokeStyle = "#fff";
    context.lineWidth = 2 * devicePixelRatio;
    context.beginPath();
    context.arc(cx, cy, r, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
    // The sign says it without colour.
    context.beginPath();
    context.moveTo(cx - r / 2, cy);
    context.lineTo(cx + r / 2, cy);
    if (label === "include") {
      context.moveTo(cx, cy - r / 2);
      context.lineTo(cx, cy + r / 2);
    }
    context.stroke();
  }

  #paintCross(point) {
    const scale = scaleOf(this.#canvas, this.#photo.size);
    const [cx, cy, arm] = [point.x * scale.x, point.y * scale.y, 12 * devicePixelRatio];
    const path = new Path2D(`M${cx - arm} ${cy}h${2 * arm}M${cx} ${cy - arm}v${2 * arm}`);
    this.#stroke(() => this.#context.stroke(path));
  }

  /** White on black, to be seen on any photo. */
  #stroke(line, dash = []) {
    const context = this.#context;
    context.setLineDash(dash.map((length) => length * devicePixelRatio));
    for (const [colour, width] of [["rgb(0 0 0 / 70%)", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * devicePixelRatio;
      line();
    }
    context.setLineDash([]);
  }
}
