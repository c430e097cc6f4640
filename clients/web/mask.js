// A mask from the service as three small pictures to lay over the photo: fill, outline, surroundings.

import { pngOf } from "./wire.js";

const FILL = [92, 107, 255]; // the accent: blue-violet is rare in photographs
const LONGEST = 1400; // pixels: finer than most stages, far cheaper than a 12-megapixel photo

export async function layersOf(mask) {
  const bitmap = await createImageBitmap(pngOf(mask.base64));
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const fill = filled(bitmap, width, height);
  bitmap.close();
  return { fill, outline: outlineOf(fill), surroundings: surroundingsOf(fill) };
}

/** The accent colour where the mask is white. */
function filled(bitmap, width, height) {
  const [canvas, context] = blank(width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const picture = context.getImageData(0, 0, width, height);
  const { data } = picture;
  for (let i = 0; i < data.length; i += 4) {
    data[i + 3] = data[i];
    [data[i], data[i + 1], data[i + 2]] = FILL;
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

/** A white rim around the mask: the mask moved in eight directions, less the mask. */
function outlineOf(fill) {
  const [canvas, context] = blank(fill.width, fill.height);
  const radius = Math.max(1, Math.max(fill.width, fill.height) / 450);
  for (let turn = 0; turn < 8; turn++) {
    const angle = (turn * Math.PI) / 4;
    context.drawImage(fill, radius * Math.cos(angle), radius * Math.sin(angle));
  }
  context.globalCompositeOperation = "destination-out";
  context.drawImage(fill, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, fill.width, fill.height);
  return canvas;
}

/** Black everywhere but on the mask. */
function surroundingsOf(fill) {
  const [canvas, context] = blank(fill.width, fill.height);
  context.fillRect(0, 0, fill.width, fill.height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(fill, 0, 0);
  return canvas;
}

function blank(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  // Read back once and then only drawn: a plain bitmap is the quickest.
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}
