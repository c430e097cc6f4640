// What the user has pointed at: immutable states on a stack, so that undo is one pop.

const EMPTY = Object.freeze({ points: [], box: null });

export class Prompt {
  #states = [EMPTY];

  get points() {
    return this.#states.at(-1).points;
  }

  get box() {
    return this.#states.at(-1).box;
  }

  get isEmpty() {
    return this.points.length === 0 && this.box === null;
  }

  get canUndo() {
    return this.#states.length > 1;
  }

  add({ x, y }, label) {
    this.#states.push({ points: [...this.points, { x, y, label }], box: this.box });
  }

  /** A prompt has one box: a new one takes the place of the old one. */
  enclose(box) {
    this.#states.push({ points: this.points, box });
  }

  undo() {
    if (this.canUndo) this.#states.pop();
  }

  /** Can be undone, too. */
  clear() {
    if (!this.isEmpty) this.#states.push(EMPTY);
  }

  toJSON() {
    return promptOf(this.points, this.box);
  }
}

/** Prompt of the wire contract. */
export function promptOf(points, box = null) {
  const json = {};
  if (points.length) {
    json.points = points.map(({ x, y, label = "include" }) => ({ x, y, label: `POINT_LABEL_${label.toUpperCase()}` }));
  }
  if (box) json.box = box;
  return json;
}
