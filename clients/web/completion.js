// One completion under way: progress and cancel.

import { complete, isAbort } from "./api.js";

const STAGES = {
  STAGE_SEGMENT: "Finding the visible part",
  STAGE_GLOBAL: "Drawing the whole object",
  STAGE_LOCAL: "Refining the details",
};

export class Completion {
  #box;
  #bar;
  #stage;
  #step;
  #controller = null;

  constructor(box) {
    this.#box = box;
    this.#bar = box.querySelector("progress");
    this.#stage = box.querySelector(".stage-name");
    this.#step = box.querySelector(".step");
    box.querySelector("[data-action=cancel]").addEventListener("click", () => this.cancel());
  }

  get isRunning() {
    return this.#controller !== null;
  }

  /** Closing the connection is how the service learns to stop computing. */
  cancel() {
    this.#controller?.abort();
  }

  /** The result, or null when it was cancelled. `on.preview` and `on.sample` hear of what comes before it. */
  async run(photo, body, on) {
    this.cancel();
    const controller = (this.#controller = new AbortController());
    this.#show("Waiting for the engine", "", 0);
    this.#box.hidden = false;
    try {
      return await photo.named((image) => this.#follow({ image, ...body }, controller.signal, on));
    } catch (error) {
      if (controller.signal.aborted || isAbort(error)) return null;
      throw error;
    } finally {
      if (this.#controller === controller) {
        this.#controller = null;
        this.#box.hidden = true;
      }
    }
  }

  async #follow(body, signal, on) {
    for await (const { event, value } of complete(body, signal)) {
      if (signal.aborted) return null;
      if (event === "result") return value;
      if (event === "progress") this.#progress(value, body.options.num_samples);
      on[event]?.(value);
    }
    return null;
  }

  #progress({ stage, sample, step, steps, fraction }, samples) {
    const parts = [];
    if (samples > 1 && stage !== "STAGE_SEGMENT") parts.push(`sample ${sample + 1} of ${samples}`);
    if (steps) parts.push(`step ${step} of ${steps}`);
    this.#show(STAGES[stage] ?? "Working", parts.join(" · "), fraction);
  }

  #show(stage, step, fraction) {
    // Written only when it changes, or a screen reader would say it at every step.
    if (this.#stage.textContent !== stage) this.#stage.textContent = stage;
    this.#step.textContent = step;
    this.#bar.value = Math.max(0, Math.min(1, fraction));
  }
}
