// The service over HTTP. Paths are relative, so that the page also works behind a path prefix.

import { readEvents } from "./events.js";
import { readEngine, readModal, readPreview, readProgress, readResult, readSample, readSize } from "./wire.js";

/** Anything that keeps the service from answering, in the terms of its problem+json. */
export class ServiceError extends Error {
  constructor({ title, detail = "", field = "", reason = "", status = 0, retryAfter = 0 }) {
    super(detail || title);
    Object.assign(this, { name: "ServiceError", title, detail, field, reason, status, retryAfter });
  }
}

export const isAbort = (error) => error?.name === "AbortError";

export async function listExamples() {
  const examples = await (await request("examples.json")).json();
  return examples.map(({ file, point, text = "" }) => ({
    name: file,
    url: `examples/${file.split("/").map(encodeURIComponent).join("/")}`,
    point: point ? { x: point[0], y: point[1] } : null,
    text,
  }));
}

export async function fetchPicture(url, signal) {
  return (await request(url, { signal })).blob();
}

export async function listEngines() {
  const { engines = [] } = await (await request("v1/engines")).json();
  return engines.map(readEngine);
}

export async function uploadImage(blob) {
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  const answer = await (await request("v1/images", { method: "POST", headers, body: blob })).json();
  return { id: answer.image_id, size: readSize(answer.size) };
}

export async function segment(body, signal) {
  const { candidates = [] } = await (await post("v1/segment", body, "application/json", signal)).json();
  return candidates.map(readModal);
}

const READERS = {
  progress: readProgress,
  modal: readModal,
  preview: readPreview,
  sample: readSample,
  result: readResult,
};

/** Yields {event, value} until the result has come; throws when the stream ends before it. */
export async function* complete(body, signal) {
  const response = await post("v1/complete", body, "text/event-stream", signal);
  try {
    for await (const { event, data } of readEvents(response.body)) {
      if (event === "error") throw fromProblem(data);
      const read = READERS[event];
      if (!read) continue; // a later service may say more
      yield { event, value: read(data) };
      if (event === "result") return;
    }
  } catch (error) {
    throw asServiceError(error);
  }
  throw new ServiceError({ title: "The connection was lost", detail: "The answer ended before the result came." });
}

function post(path, body, accept, signal) {
  const headers = { "Content-Type": "application/json", Accept: accept };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function request(path, init = {}) {
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    throw asServiceError(error);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({})); // a proxy in between may answer with a page
  const retryAfter = Number(response.headers.get("Retry-After")) || problem.retry_after;
  throw fromProblem({ title: `The service answered ${response.status}`, ...problem, status: response.status }, retryAfter);
}

function fromProblem({ title = "The service failed", detail, field, reason, status, retry_after }, retryAfter = retry_after) {
  return new ServiceError({ title, detail, field, reason, status, retryAfter: Number(retryAfter) || 0 });
}

function asServiceError(error) {
  if (isAbort(error) || error instanceof ServiceError) return error;
  if (error instanceof TypeError) {
    // This is how fetch reports a network that fails.
    return new ServiceError({ title: "The service cannot be reached", detail: "Check the connection, then try again." });
  }
  return error;
}
