// The completion form: read into CompleteOptions, fitted to what the chosen engine allows.

const SLIDERS = ["guidance_image", "guidance_text", "local_strength"];

export class Options {
  #form;
  #engines = [];

  constructor(form) {
    this.#form = form;
    for (const name of SLIDERS) {
      form.elements[name].addEventListener("input", (event) => {
        event.target.dataset.set = "";
        this.#tell(event.target);
      });
      this.#tell(form.elements[name]);
    }
    form.elements.engine_id.addEventListener("change", () => this.#offerPresets());
    form.elements.preset.addEventListener("change", () => this.reset());
    form.querySelector("[data-action=defaults]").addEventListener("click", () => this.reset());
  }

  /** The engine that will be asked, or null before the engines are known. */
  get engine() {
    const chosen = this.#form.elements.engine_id.value;
    return this.#engines.find(({ id }) => id === chosen) ?? null;
  }

  /** Empty when there is no choice: the service then takes its default. */
  get engineId() {
    return this.#engines.length > 1 ? this.#form.elements.engine_id.value : "";
  }

  offer(engines) {
    this.#engines = engines;
    const { engine_id } = this.#form.elements;
    engine_id.replaceChildren(...engines.map(({ id, name, isDefault }) => new Option(name, id, isDefault, isDefault)));
    this.#form.querySelector("#engine").hidden = engines.length < 2;
    this.#offerPresets();
  }

  /** Back to the preset's values; what is wanted (text, samples, seed) stays. */
  reset() {
    const { elements } = this.#form;
    const { limits } = this.engine ?? {};
    const defaults = this.#defaults;
    for (const name of SLIDERS) {
      const slider = elements[name];
      delete slider.dataset.set;
      slider.value = defaults[name] ?? slider.defaultValue;
      this.#tell(slider);
    }
    elements.keep_visible.checked = defaults.keep_visible ?? true;
    elements.steps.value = "";
    elements.steps.placeholder = defaults.steps ? `${defaults.steps}` : "default";
    if (!limits) return;
    elements.steps.max = limits.steps;
    elements.num_samples.max = Math.min(8, limits.samples);
    elements.text.maxLength = limits.characters;
  }

  /** Null, and the browser says why, when a field is out of range. */
  read() {
    if (!this.#form.reportValidity()) return null;
    const { elements } = this.#form;
    const options = { num_samples: elements.num_samples.valueAsNumber };
    const text = elements.text.value.trim();
    if (text) options.text = text;
    if (elements.preset.value) options.preset = elements.preset.value;
    for (const name of ["seed", "steps"]) {
      if (elements[name].value) options[name] = elements[name].valueAsNumber;
    }
    // A slider that was never moved leaves the choice to the engine.
    for (const name of SLIDERS) {
      if ("set" in elements[name].dataset) options[name] = elements[name].valueAsNumber;
    }
    if (!elements.keep_visible.checked) options.keep_visible = false;
    return options;
  }

  /** About eight previews in each stage: enough to watch, cheap to send. */
  get previewEvery() {
    const { steps } = this.#form.elements;
    const planned = steps.valueAsNumber || this.#defaults.steps || 16;
    return Math.max(1, Math.round(planned / 8));
  }

  /** Of the chosen preset; an empty value in the list stands for the engine's default one. */
  get #defaults() {
    const { defaults = {}, presets = {} } = this.engine ?? {};
    return { ...defaults, ...presets[this.#form.elements.preset.value] };
  }

  #offerPresets() {
    const { defaults = {}, presets = {} } = this.engine ?? {};
    const names = Object.keys(presets).filter((name) => name !== defaults.preset).sort();
    const choices = [new Option(defaults.preset || "default", ""), ...names.map((name) => new Option(name, name))];
    this.#form.elements.preset.replaceChildren(...choices);
    this.#form.querySelector("#preset").hidden = !names.length;
    this.reset();
  }

  #tell(slider) {
    const digits = slider.step.split(".")[1]?.length ?? 0;
    slider.closest("label").querySelector("output").textContent =
      ("set" in slider.dataset ? "" : "default ") + Number(slider.value).toFixed(digits);
  }
}
