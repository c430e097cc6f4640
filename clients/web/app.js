// Binds the page: a picture is opened, an object selected, its completion run and shown.

import { fetchPicture, listEngines } from "./api.js";
import { Completion } from "./completion.js";
import { Notice } from "./notice.js";
import { Options } from "./options.js";
import { Photo } from "./photo.js";
import { listen } from "./pointer.js";
import { ResultView } from "./result.js";
import { Selection } from "./selection.js";
import { listenForPictures } from "./sources.js";
import { Stage } from "./stage.js";

const $ = (selector) => document.querySelector(selector);

const form = $("form.panel");
const canvas = $("#stage");
const stage = new Stage(canvas);
const options = new Options(form);
const completion = new Completion($("#progress"));
const notice = new Notice($("#notice"));
const results = new ResultView($("#desk"), {
  show: () => {
    look("result");
    $(".viewer").scrollIntoView({ block: "nearest" });
  },
  seed: (seed) => (form.elements.seed.value = seed),
  say,
});

let photo = null;
let selection = null;
let offered = null; // the candidates that the picker shows
let saying = 0; // the timer of what is said
let opening = 0; // counts, so that only the last picture picked is opened

listenForPictures({
  file: (file) => open(() => file, file.name || "pasted.png"),
  scene: (example) => open(() => fetchPicture(example.url), example.name, example),
  error: (error) => notice.show(error),
});

listen(canvas, {
  size: () => (completion.isRunning ? null : stage.size),
  tool: () => form.elements.tool.value,
  on: {
    hover: (point) => selection.hover(point),
    leave: () => selection?.leave(),
    point: (point, label) => selection.add(point, label) || say("Add a place on the object first, then subtract."),
    draft: (box) => stage.draft(box),
    box: (box) => selection.enclose(box),
    cross: (point) => stage.cross(point),
  },
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
form.addEventListener("change", ({ target }) => {
  if (target.name === "tool") showTool();
  if (target.name === "candidate") selection.choose(Number(target.value));
  if (target.name === "engine_id") selection?.refresh(); // another engine sees other masks
});
$("#view").addEventListener("change", ({ target }) => look(target.value));
$("[data-action=undo]").addEventListener("click", () => undo());
$("[data-action=clear]").addEventListener("click", () => selection.clear());
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=text], input[type=number]"); // there, Ctrl+Z belongs to the text
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !event.shiftKey && !typing) {
    event.preventDefault();
    undo();
  }
});

showTool();
askEngines();

/** Shows a picture and starts its upload. */
async function open(read, name, { point = null, text = "" } = {}) {
  const turn = ++opening;
  notice.hide();
  try {
    const next = await Photo.open(await read(), name);
    if (turn !== opening) return next.close();
    completion.cancel();
    selection?.close();
    photo?.close();
    photo = next;
    selection = new Selection(photo, () => options.engineId, { onChange: showSelection, onError: (error, again) => notice.show(error, again) });
  } catch (error) {
    if (turn === opening) notice.show(error, () => open(read, name, { point, text }));
    return;
  }
  $("#welcome").hidden = true;
  $("#desk").hidden = $("#pictures").hidden = false;
  $("#picture-name").textContent = name;
  form.elements.text.value = text;
  results.clear();
  look("photo");
  stage.open(photo);
  showSelection();
  await upload(point);
}

async function upload(point) {
  const uploaded = photo;
  try {
    const limit = options.engine?.limits.bytes;
    if (photo.blob.size > limit) say(`This picture is larger than the ${Math.round(limit / 1e6)} MB that the service accepts.`);
    await photo.id();
    if (photo !== uploaded) return;
    stage.open(photo); // the service's own size is now known
    if (point && selection.prompt.isEmpty) selection.add(point, "include");
  } catch (error) {
    if (photo === uploaded) notice.show(error, () => upload(point));
  }
}

async function run() {
  const chosen = options.read();
  if (!chosen || !selection || selection.prompt.isEmpty || completion.isRunning) return;
  notice.hide();
  say("");
  const body = { prompt: selection.promptJson(), options: chosen };
  if (options.engineId) body.engine_id = options.engineId;
  const request = { photo, body };
  const [submit, cancel] = [form.querySelector("[type=submit]"), $("[data-action=cancel]")];
  const held = document.activeElement === submit;
  look("photo");
  canvas.scrollIntoView({ block: "nearest" }); // on a phone the form is far below what is drawn
  stage.work(true);
  const running = completion.run(photo, { ...body, preview_every: options.previewEvery }, {
    preview: (preview) => stage.preview(preview),
    sample: (sample) => results.add(request, sample),
  });
  showSelection();
  if (held) cancel.focus({ preventScroll: true }); // its button has gone; the keyboard must not lose its place
  try {
    const result = await running;
    if (photo !== request.photo) return; // another picture was opened meanwhile
    if (result) results.finish(request, result);
    say(result ? `${result.samples.length === 1 ? "The object is" : `${result.samples.length} samples are`} complete.` : "Cancelled.");
  } catch (error) {
    if (photo === request.photo) notice.show(error, run);
  } finally {
    if (!completion.isRunning) {
      stage.work(false);
      showSelection();
      if (held && document.activeElement === document.body) submit.focus({ preventScroll: true });
    }
  }
}

function undo() {
  if (completion.isRunning || !selection) return;
  look("photo");
  selection.undo();
}

function look(view) {
  $("#desk").dataset.view = view;
  $("#view [value=result]").disabled = results.isEmpty;
  $(`#view [value=${view}]`).checked = true;
}

function showSelection() {
  const { prompt, candidates, chosen, busy } = selection;
  const working = completion.isRunning;
  stage.select(selection);
  $("#view [value=result]").disabled = results.isEmpty;
  $("[data-action=undo]").disabled = !prompt.canUndo || working;
  $("[data-action=clear]").disabled = prompt.isEmpty || working;
  form.querySelector("[type=submit]").hidden = working;
  form.querySelector("[type=submit]").disabled = prompt.isEmpty || (!busy && candidates.length === 0);
  const picker = $(".candidates");
  picker.hidden = candidates.length < 2 || prompt.isEmpty;
  picker.disabled = busy || working;
  if (candidates === offered) return; // made anew, the radio under the keyboard would lose its focus
  offered = candidates;
  picker.querySelector("div").replaceChildren(...candidates.map((candidate, index) => radio(candidate, index, chosen)));
}

function radio({ score }, index, chosen) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "candidate", value: index });
  input.checked = index === chosen;
  input.setAttribute("aria-label", `Mask ${index + 1}, score ${score.toFixed(2)}`);
  const text = Object.assign(document.createElement("span"), { textContent: score.toFixed(2) });
  label.append(input, text);
  return label;
}

function showTool() {
  const tool = form.elements.tool.value;
  const touch = matchMedia("(hover: none)").matches;
  canvas.dataset.tool = tool;
  $("#stage-help").textContent = {
    include: touch ? "Tap the object." : "Click the object. Right-click takes a part away, a drag draws a box.",
    exclude: `${touch ? "Tap" : "Click"} what does not belong to the object.`,
    box: "Drag a box around the object.",
  }[tool];
}

async function askEngines() {
  try {
    const engines = await listEngines();
    options.offer(engines);
    $("#engines").replaceChildren(...engines.map(engineLine));
  } catch (error) {
    notice.show(error, askEngines);
  }
}

function engineLine({ name, id, licence, commercialUse, runtimes }) {
  const parts = [name, licence && `${licence}${commercialUse ? "" : ", no commercial use"}`];
  parts.push(...Object.entries(runtimes).map(([component, runtime]) => `${component} on ${runtime}`));
  const line = Object.assign(document.createElement("p"), { title: id });
  line.textContent = parts.filter(Boolean).join(" · ");
  return line;
}

/** For a moment on the screen, and for screen readers. */
function say(text) {
  $("#said").textContent = text;
  clearTimeout(saying);
  saying = setTimeout(() => ($("#said").textContent = ""), 5000);
}
