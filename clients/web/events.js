// Server-sent events read from a fetch response. EventSource cannot send a POST body.

/** Yields {event, data} for each event; `data` is parsed JSON. */
export async function* readEvents(stream) {
  let event = "message";
  let data = [];
  for await (const line of readLines(stream)) {
    if (line === "") {
      if (data.length) yield { event, data: JSON.parse(data.join("\n")) };
      event = "message";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    if (colon === 0) continue; // a comment: the service's keep-alive
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") event = value;
    else if (name === "data") data.push(value);
  }
}

/** Lines without their end, LF or CRLF. */
async function* readLines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  // A picture is one line of megabytes in many chunks: the pieces are joined once, when the line ends.
  let pieces = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = decoder.decode(value, { stream: true }).split("\n");
      for (const part of parts.slice(0, -1)) {
        pieces.push(part);
        yield pieces.join("").replace(/\r$/, "");
        pieces = [];
      }
      pieces.push(parts.at(-1));
    }
  } finally {
    // Also reached when the caller stops early: the service sees the connection close.
    reader.cancel().catch(() => {});
  }
}
