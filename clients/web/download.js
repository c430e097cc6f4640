// Files and text out of the page.

/** Saves the very bytes that the service sent. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may still be asking where to
}

/** The part of a PNG within a half-open box, as a new PNG. */
export async function cropped(png, { x_min, y_min, x_max, y_max }) {
  // Pixels as they are stored: no colour management on the way.
  const bitmap = await createImageBitmap(png, { colorSpaceConversion: "none" });
  const canvas = Object.assign(document.createElement("canvas"), { width: x_max - x_min, height: y_max - y_min });
  canvas.getContext("2d").drawImage(bitmap, -x_min, -y_min);
  bitmap.close();
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/** The clipboard needs a secure origin; a plain http address in a local network gets a prompt to copy from. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    window.prompt("Copy this:", text);
  }
}

export function stem(name) {
  return name.replace(/\.[^.]*$/, "") || "picture";
}
