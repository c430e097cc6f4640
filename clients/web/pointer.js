// Mouse, touch, pen and keyboard on the stage, told as what they mean:
//   hover(point)  leave()  point(point, label)  draft(box or null)  box(box)  cross(point)

import { boxBetween, toImage } from "./geometry.js";

const DRAG = 5; // CSS pixels: less is a click by an unsteady hand
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** `size` gives the image's size, null while there is none; `tool` gives include, exclude or box. */
export function listen(canvas, { size, tool, on }) {
  let press = null;
  let cross = null;
  const place = (event) => toImage(canvas.getBoundingClientRect(), size(), event.clientX, event.clientY);
  const boxTo = (event) => boxBetween(canvas.getBoundingClientRect(), size(), press, event);

  // Touch drags scroll the page, unless the box tool is chosen: only then does a drag draw.
  const draws = (event) => tool() === "box" || (event.pointerType !== "touch" && press.button === 0);
  const isDrag = (event) => Math.hypot(event.clientX - press.clientX, event.clientY - press.clientY) > DRAG;

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());

  canvas.addEventListener("pointerdown", (event) => {
    if (!size() || !event.isPrimary || event.button === 1) return;
    const { clientX, clientY, button, shiftKey, ctrlKey } = event;
    // Ctrl-click is the right click of one-button mice.
    const exclude = button === 2 || shiftKey || ctrlKey;
    press = { clientX, clientY, button, exclude, place: place(event), dragged: false };
    canvas.setPointerCapture(event.pointerId);
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!size() || !event.isPrimary) return;
    if (!press) {
      if (event.pointerType !== "touch") on.hover(place(event));
      return;
    }
    press.dragged ||= draws(event) && isDrag(event);
    if (press.dragged) on.draft(boxTo(event));
  });

  canvas.addEventListener("pointerup", (event) => {
    if (!press || !event.isPrimary) return;
    const { dragged, exclude, place: pressed } = press;
    if (dragged) {
      const box = boxTo(event);
      on.draft(null);
      if (box.x_max > box.x_min && box.y_max > box.y_min) on.box(box);
    } else if (!isDrag(event)) {
      on.point(pressed, exclude || tool() === "exclude" ? "exclude" : "include");
    }
    press = null;
  });

  canvas.addEventListener("pointercancel", () => {
    press = null;
    on.draft(null);
  });

  canvas.addEventListener("pointerleave", () => {
    if (!press) on.leave();
  });

  canvas.addEventListener("keydown", (event) => {
    if (!size() || event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height } = size();
    const step = STEPS[event.key];
    if (step) {
      // A hundredth of the picture; with Shift one pixel.
      const stride = event.shiftKey ? 1 : Math.max(width, height) / 100;
      const from = cross ?? { x: width / 2, y: height / 2 };
      const rect = { left: 0, top: 0, width, height };
      cross = toImage(rect, size(), from.x + step[0] * stride, from.y + step[1] * stride);
      on.cross(cross);
      on.hover(cross);
    } else if (cross && (event.key === "Enter" || event.key === " ")) {
      on.point(cross, tool() === "exclude" ? "exclude" : "include");
    } else if (cross && (event.key === "-" || event.key === "Backspace")) {
      on.point(cross, "exclude");
    } else {
      return;
    }
    event.preventDefault();
  });

  canvas.addEventListener("blur", () => {
    cross = null;
    on.cross(null);
    on.leave();
  });
}
