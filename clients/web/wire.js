// Protobuf JSON to plain values and back. Fields at their default may be absent,
// 64-bit integers are strings, bytes are standard base64.

export function bytesOf(base64 = "") {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export function pngOf(base64) {
  return new Blob([bytesOf(base64)], { type: "image/png" });
}

export function readBox({ x_min = 0, y_min = 0, x_max = 0, y_max = 0 } = {}) {
  return { x_min, y_min, x_max, y_max };
}

export function readSize({ width = 0, height = 0 } = {}) {
  return { width, height };
}

/** A modal mask; the base64 is kept, because it goes back as it came when this candidate is chosen. */
export function readModal({ mask = {}, score = 0, box } = {}) {
  return { base64: mask.png ?? "", score, box: readBox(box) };
}

export function readProgress({ stage = "STAGE_UNSPECIFIED", sample = 0, step = 0, steps = 0, fraction = 0 }) {
  return { stage, sample, step, steps, fraction };
}

export function readPreview({ sample = 0, rgba_png, box }) {
  return { sample, png: pngOf(rgba_png), box: readBox(box) };
}

export function readSample({ rgba_png, box, seed = 0, score = 0, occluded_fraction = 0 }) {
  return { png: pngOf(rgba_png), box: readBox(box), seed, score, occluded: occluded_fraction };
}

export function readResult({ samples = [], already_whole = false, engine_id = "", timings = {} }) {
  return {
    samples: samples.map(readSample),
    alreadyWhole: already_whole,
    engineId: engine_id,
    seconds: timings.seconds ?? {},
  };
}

export function readEngine(engine) {
  const { engine_id = "", name = "", licence = "", commercial_use = false, runtimes = {} } = engine;
  const { max_bytes, max_points, max_samples, max_steps, max_text_characters } = engine.limits ?? {};
  return {
    id: engine_id,
    name: name || engine_id,
    licence,
    commercialUse: commercial_use,
    runtimes,
    isDefault: engine.is_default ?? false,
    defaults: engine.defaults ?? {},
    presets: engine.presets ?? {},
    // A limit of 0 or none is no limit that this page knows of.
    limits: {
      bytes: Number(max_bytes) || Infinity,
      points: max_points || Infinity,
      samples: max_samples || 8,
      steps: max_steps || 1000,
      characters: max_text_characters || 1000,
    },
  };
}
