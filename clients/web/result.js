// The samples of a completion: thumbnails, the chosen one large, the photo to compare it with.

import { copy, cropped, save, stem } from "./download.js";
import { curlOf, pythonOf } from "./snippets.js";

const THUMBNAIL = 160; // pixels along the longer side

export class ResultView {
  #view;
  #list;
  #samples = [];
  #chosen = null;
  #request = null; // {photo, body}
  #result = null; // engine, seconds and verdict, once it is complete
  #url = "";
  #on;

  /** `on.show()` asks for the result to be seen, `on.seed(seed)` reuses a seed, `on.say(text)` tells what was done. */
  constructor(view, on) {
    this.#view = view;
    this.#list = view.querySelector(".samples");
    this.#on = on;
    const act = (action, listener) => this.#find(`[data-action=${action}]`).addEventListener("click", listener);
    act("download", () => save(this.#chosen.png, `${this.#stem}.png`));
    act("download-crop", async () => save(await cropped(this.#chosen.png, this.#chosen.box), `${this.#stem}-cropped.png`));
    act("keep-seed", () => on.seed(this.#chosen.seed));
    act("copy-curl", () => this.#copy(curlOf, "The curl lines are copied."));
    act("copy-python", () => this.#copy(pythonOf, "The Python lines are copied."));
    act("zoom", ({ currentTarget }) => {
      currentTarget.ariaPressed = `${currentTarget.ariaPressed !== "true"}`;
      this.#zoom();
    });
    this.#find(".split").addEventListener("input", ({ target }) => this.#split(target.value));
    this.#listenForCompare();
  }

  get isEmpty() {
    return this.#samples.length === 0;
  }

  clear() {
    this.#samples = [];
    this.#chosen = this.#result = null;
    this.#list.replaceChildren();
  }

  /** A sample that is ready before the others; the first one takes the place of an older result. */
  add(request, sample) {
    if (this.#request !== request || this.#result) this.clear();
    this.#request = request;
    this.#samples.push(sample);
    this.#list.append(this.#thumbnail(sample, this.#samples.length));
  }

  /** Everything, best first. */
  finish(request, result) {
    this.clear();
    this.#request = request;
    this.#result = result;
    this.#samples = result.samples;
    this.#list.replaceChildren(...result.samples.map((sample, index) => this.#thumbnail(sample, index + 1)));
    this.#find(".verdict").hidden = !result.alreadyWhole;
    if (result.samples.length) this.#choose(result.samples[0]);
  }

  get #stem() {
    return `${stem(this.#request.photo.name)}-whole-${this.#chosen.seed}`;
  }

  #find(selector) {
    return this.#view.querySelector(selector);
  }

  #choose(sample) {
    this.#chosen = sample;
    const { photo } = this.#request;
    URL.revokeObjectURL(this.#url);
    this.#url = URL.createObjectURL(sample.png);
    this.#find(".object").src = this.#url;
    this.#find(".object").alt = `The whole object, ${percent(sample.occluded)} of it drawn anew`;
    this.#find(".original").src = photo.url;
    this.#find(".split").value = 0;
    this.#split(0);
    this.#zoom();
    for (const [index, item] of [...this.#list.children].entries()) {
      item.firstChild.ariaPressed = `${this.#samples[index] === sample}`;
    }
    this.#tell(sample);
    this.#on.show();
  }

  #tell({ score, occluded, seed, box }) {
    const facts = [
      ["Score", score.toFixed(2)],
      ["Hidden", percent(occluded)],
      ["Seed", `${seed}`],
      ["Size", `${box.x_max - box.x_min} × ${box.y_max - box.y_min} px`],
    ];
    if (this.#result) {
      const seconds = Object.values(this.#result.seconds).reduce((sum, part) => sum + part, 0);
      if (seconds) facts.push(["Time", `${seconds.toFixed(1)} s`]);
      facts.push(["Engine", this.#result.engineId.replace(/(@.{8}).*/, "$1…")]);
    }
    this.#find(".facts").replaceChildren(...facts.map(([name, value]) => pair(name, value)));
  }

  #thumbnail(sample, rank) {
    const button = Object.assign(document.createElement("button"), { type: "button", ariaPressed: "false" });
    const canvas = document.createElement("canvas");
    canvas.className = "checkered";
    const caption = Object.assign(document.createElement("span"), { textContent: sample.score.toFixed(2) });
    const hidden = Object.assign(document.createElement("small"), { textContent: `${percent(sample.occluded)} hidden` });
    button.append(canvas, caption, hidden);
    button.setAttribute("aria-label", `Sample ${rank}: score ${sample.score.toFixed(2)}, ${percent(sample.occluded)} hidden`);
    button.addEventListener("click", () => this.#choose(sample));
    paintCropped(canvas, sample);
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  #split(share) {
    this.#find(".viewer").style.setProperty("--split", `${share}%`);
  }

  /** Scales both pictures alike, so that the object fills the viewer. */
  #zoom() {
    let transform = "none";
    if (this.#find("[data-action=zoom]").ariaPressed === "true" && this.#chosen) {
      const { width, height } = this.#request.photo.size;
      const { x_min, y_min, x_max, y_max } = this.#chosen.box;
      const scale = Math.max(1, Math.min(8, 0.9 / Math.max((x_max - x_min) / width, (y_max - y_min) / height)));
      // The box's centre goes to the middle, as far as the picture still covers the viewer.
      const shift = (centre) => Math.min(0, Math.max(1 / scale - 1, 0.5 / scale - centre)) * 100;
      const [x, y] = [shift((x_min + x_max) / 2 / width), shift((y_min + y_max) / 2 / height)];
      transform = `scale(${scale}) translate(${x}%, ${y}%)`;
    }
    this.#find(".viewer").style.setProperty("--zoom", transform);
  }

  #listenForCompare() {
    const button = this.#find("[data-action=compare]");
    const compare = (on) => this.#find(".viewer").toggleAttribute("data-compare", on);
    const isKey = (event) => event.key === "c" || event.key === "C" || (event.key === " " && event.target === button);
    button.addEventListener("pointerdown", () => compare(true));
    for (const end of ["pointerup", "pointercancel", "blur"]) window.addEventListener(end, () => compare(false));
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on touch
    document.addEventListener("keydown", (event) => {
      if (this.#view.dataset.view !== "result" || event.ctrlKey || event.metaKey || event.target.matches("input:not(.split), select")) return;
      if (isKey(event)) compare(true);
    });
    document.addEventListener("keyup", (event) => isKey(event) && compare(false));
  }

  async #copy(snippet, done) {
    const { photo, body } = this.#request;
    const { seed } = this.#chosen;
    // One sample with its own seed: the line gives exactly the picture on the screen.
    const options = { ...body.options, num_samples: 1, seed };
    const origin = new URL(".", location.href).href.replace(/\/$/, "");
    const image = { image_id: await photo.id() };
    await copy(snippet({ origin, photo, body: { image, ...body, options } }));
    this.#on.say(done);
  }
}

async function paintCropped(canvas, { png, box }) {
  const [width, height] = [box.x_max - box.x_min, box.y_max - box.y_min];
  const scale = THUMBNAIL / Math.max(width, height, 1);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const bitmap = await createImageBitmap(png);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, box.x_min, box.y_min, width, height, 0, 0, canvas.width, canvas.height);
  bitmap.close();
}

function pair(name, value) {
  const group = document.createElement("div");
  group.append(
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: value }),
  );
  return group;
}

function percent(share) {
  return `${Math.round(share * 100)} %`;
}
