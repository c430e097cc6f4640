// Where pictures come from: sample scenes, files, drag and drop, the clipboard.

import { listExamples } from "./api.js";

/** `on.file(file)` and `on.scene(example)` hear what was picked; `on.error(error)` what failed. */
export function listenForPictures(on) {
  for (const input of document.querySelectorAll("input.file")) {
    input.addEventListener("change", () => {
      if (input.files[0]) on.file(input.files[0]);
      input.value = ""; // picking the same file twice is a change, too
    });
  }

  const drop = document.querySelector("#drop");
  let depth = 0; // enter and leave come for every element on the way
  const cover = (change) => {
    depth = Math.max(0, depth + change);
    drop.hidden = depth === 0;
  };
  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => carriesFile(event) && cover(1));
  document.addEventListener("dragleave", (event) => carriesFile(event) && cover(-1));
  document.addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    cover(-depth);
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));

  function take(files) {
    const picture = [...files].find(({ type }) => type.startsWith("image/")) ?? files[0];
    if (picture) on.file(picture);
  }

  showScenes(on).catch((error) => on.error(error));
}

async function showScenes(on) {
  const examples = await listExamples();
  for (const list of document.querySelectorAll(".scenes")) {
    list.replaceChildren(...examples.map((example) => tile(example, on.scene)));
  }
  document.querySelector(".scenes-block").hidden = examples.length === 0;
}

function tile(example, onPick) {
  const title = example.text || example.name;
  const image = Object.assign(new Image(), { src: example.url, alt: "", loading: "lazy" });
  const button = Object.assign(document.createElement("button"), { type: "button", title });
  button.setAttribute("aria-label", `Open the scene: ${title}`);
  button.append(image);
  button.addEventListener("click", () => onPick(example));
  const item = document.createElement("li");
  item.append(button);
  return item;
}
