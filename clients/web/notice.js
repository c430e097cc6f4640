// What went wrong, and the way on. One message at a time: the newest is the one that matters.

import { ServiceError, isAbort } from "./api.js";

export class Notice {
  #box;
  #title;
  #detail;
  #retry;
  #timer = 0;

  constructor(box) {
    this.#box = box;
    this.#title = box.querySelector("strong");
    this.#detail = box.querySelector("span");
    this.#retry = box.querySelector("[data-action=retry]");
    box.querySelector("[data-action=dismiss]").addEventListener("click", () => this.hide());
  }

  /** `again`, if any, is offered as a button; on an overloaded service only after the time it asked for. */
  show(error, again = null) {
    if (isAbort(error)) return;
    if (!(error instanceof ServiceError)) {
      console.error(error); // a fault of this page
      error = new ServiceError({ title: "Something went wrong on this page", detail: error.message });
    }
    this.hide();
    this.#title.textContent = error.title;
    this.#detail.textContent = [error.detail, error.field && `(${error.field})`].filter(Boolean).join(" ");
    this.#retry.hidden = !again;
    this.#retry.onclick = () => {
      this.hide();
      again();
    };
    this.#wait(Math.ceil(error.retryAfter));
    this.#box.hidden = false;
  }

  hide() {
    clearTimeout(this.#timer);
    this.#box.hidden = true;
  }

  #wait(seconds) {
    this.#retry.disabled = seconds > 0;
    this.#retry.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
    if (seconds > 0) this.#timer = setTimeout(() => this.#wait(seconds - 1), 1000);
  }
}
