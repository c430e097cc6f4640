// Screen to image and back. The element shows exactly the whole image, so its rectangle says it all:
// device pixel ratio, page zoom and CSS scaling need no further thought.

/** xy in pixels of the upright image, inside it, to a hundredth of a pixel. */
export function toImage(rect, size, clientX, clientY) {
  return {
    x: inside(((clientX - rect.left) / rect.width) * size.width, size.width),
    y: inside(((clientY - rect.top) / rect.height) * size.height, size.height),
  };
}

/** Half-open box around two corners given on the screen. */
export function boxBetween(rect, size, from, to) {
  const a = toImage(rect, size, from.clientX, from.clientY);
  const b = toImage(rect, size, to.clientX, to.clientY);
  return {
    x_min: Math.floor(Math.min(a.x, b.x)),
    y_min: Math.floor(Math.min(a.y, b.y)),
    x_max: Math.ceil(Math.max(a.x, b.x)),
    y_max: Math.ceil(Math.max(a.y, b.y)),
  };
}

/** Image pixels to the pixels of a canvas that shows the whole image. */
export function scaleOf(canvas, size) {
  return { x: canvas.width / size.width, y: canvas.height / size.height };
}

function inside(value, extent) {
  const rounded = Math.round(value * 100) / 100;
  return Math.min(Math.max(rounded, 0), extent - 0.01); // the far edge is outside: pixels are half-open
}
