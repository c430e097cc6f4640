// The same request for a terminal and for Python, as text to paste.

/** Names the image by its content hash; the first line uploads it again should the service have forgotten it. */
export function curlOf({ origin, photo, body }) {
  return [
    `curl -sS ${origin}/v1/images -H 'Content-Type: ${photo.blob.type}' --data-binary @${shell(photo.name)}`,
    `curl -sS ${origin}/v1/complete -H 'Content-Type: application/json' -H 'Accept: image/png' ` +
      `-d ${shell(JSON.stringify(body))} -o object.png`,
  ].join("\n");
}

export function pythonOf({ origin, photo, body }) {
  const { points = [], box, mask } = body.prompt;
  const named = [];
  if (points.length) {
    const tuples = points.map(({ x, y, label }) => `(${x}, ${y}${label === "POINT_LABEL_EXCLUDE" ? ", 0" : ""})`);
    named.push(["points", `[${tuples.join(", ")}]`]);
  }
  if (box) named.push(["box", `(${box.x_min}, ${box.y_min}, ${box.x_max}, ${box.y_max})`]);
  if (mask) named.push(["mask", `base64.b64decode("${mask.png}")`]);
  for (const [name, value] of Object.entries(body.options)) named.push([name, python(value)]);
  const engine = body.engine_id ? `, engine=${python(body.engine_id)}` : "";
  return [
    ...(mask ? ["import base64", ""] : []),
    "from deocc import Client",
    "",
    `with Client(${python(origin)}${engine}) as client:`,
    `    result = client.complete(${[python(photo.name), ...named.map(([name, value]) => `${name}=${value}`)].join(", ")})`,
    '    result.samples[0].save("object.png")',
    "",
  ].join("\n");
}

function shell(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function python(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  return JSON.stringify(value); // JSON strings and numbers are Python's, too
}
