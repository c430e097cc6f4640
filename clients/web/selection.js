// The object meant in one photo: follows the pointer, keeps the prompt and the masks it gives.

import { isAbort } from "./api.js";
import { Prompt, promptOf } from "./prompt.js";

const HOVER_PAUSE = 40; // milliseconds between two previews, so that other visitors get their turn

export class Selection {
  prompt = new Prompt();
  candidates = []; // best first
  chosen = 0;
  hovered = null; // the mask under the pointer while nothing is selected
  busy = false;
  #photo;
  #engineId;
  #onChange;
  #onError;
  #pointer = null;
  #hovering = null;
  #complained = false; // of a hover that failed: once is enough until one succeeds
  #segmenting = null;

  /** `engineId` is asked anew at each call: the choice of engine may change. */
  constructor(photo, engineId, { onChange, onError }) {
    this.#photo = photo;
    this.#engineId = engineId;
    this.#onChange = onChange;
    this.#onError = onError;
  }

  /** The mask to show: the chosen one, or the one under the pointer. */
  get mask() {
    return this.prompt.isEmpty ? this.hovered : (this.candidates[this.chosen] ?? null);
  }

  /** The best mask is what the service finds again by itself; any other one is sent as a mask. */
  promptJson() {
    const chosen = this.candidates[this.chosen];
    return this.chosen > 0 && chosen ? { mask: { png: chosen.base64 } } : this.prompt.toJSON();
  }

  hover(point) {
    if (!this.prompt.isEmpty) return;
    this.#pointer = point;
    if (!this.#hovering) this.#follow();
  }

  leave() {
    this.#stopHovering();
    this.#onChange();
  }

  add(point, label) {
    // Without anything to subtract from, an excluded point means nothing yet.
    if (label === "exclude" && this.prompt.isEmpty) return false;
    this.prompt.add(point, label);
    this.refresh();
    return true;
  }

  enclose(box) {
    this.prompt.enclose(box);
    this.refresh();
  }

  undo() {
    this.prompt.undo();
    this.refresh();
  }

  clear() {
    this.prompt.clear();
    this.refresh();
  }

  choose(index) {
    this.chosen = index;
    this.#onChange();
  }

  close() {
    this.#stopHovering();
    this.#segmenting?.abort();
  }

  /** Asks for the masks of the prompt; an older question is dropped. */
  async refresh() {
    this.#stopHovering();
    this.#segmenting?.abort();
    this.chosen = 0;
    this.busy = !this.prompt.isEmpty;
    if (!this.busy) {
      this.candidates = [];
      this.#onChange();
      return;
    }
    this.#onChange();
    const { signal } = (this.#segmenting = new AbortController());
    try {
      const candidates = await this.#photo.segment(this.prompt.toJSON(), this.#engineId(), signal);
      if (signal.aborted) return;
      this.candidates = candidates;
    } catch (error) {
      if (signal.aborted || isAbort(error)) return;
      this.candidates = [];
      this.#onError(error, () => this.refresh());
    }
    this.busy = false;
    this.#onChange();
  }

  /**
   * One request at a time, each for the newest place. A request under way is not dropped because
   * the pointer moved on: on a slow service a moving pointer would then never show a mask.
   */
  async #follow() {
    const { signal } = (this.#hovering = new AbortController());
    try {
      while (this.#pointer) {
        const point = this.#pointer;
        this.#pointer = null;
        const [best = null] = await this.#photo.segment(promptOf([point]), this.#engineId(), signal);
        if (signal.aborted) return;
        this.hovered = best;
        this.#complained = false;
        this.#onChange();
        await new Promise((done) => setTimeout(done, HOVER_PAUSE));
        if (signal.aborted) return;
      }
      this.#hovering = null;
    } catch (error) {
      if (signal.aborted || isAbort(error)) return;
      this.#stopHovering();
      // A busy service is no reason to interrupt: the next move asks again.
      if (this.#complained || error.status === 429 || error.status === 503) return;
      this.#complained = true;
      this.#onError(error, null);
    }
  }

  #stopHovering() {
    this.#hovering?.abort();
    this.#hovering = null;
    this.#pointer = null;
    this.hovered = null;
  }
}
