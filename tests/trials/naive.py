"""What the service is compared with: the same engine behind FastAPI with one lock, or behind `@serve.batch`.

python -m tests.trials.naive lock|batch --http-port 8100
"""

import argparse
import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from deocc_engines.completion import CompletionOptions
from deocc_engines.deoccluder import Deoccluder
from deocc_engines.image import decode_image, encode_png
from deocc_engines.limits import Limits
from deocc_engines.loading import load_deoccluder
from deocc_engines.prompt import Point, Prompt

MAX_BATCH = 8
BATCH_WAIT = 0.05  # seconds


def completed(deoccluder: Deoccluder, body: dict[str, Any]) -> dict[str, Any]:
    """The service's JSON in, the pictures out."""
    photo = decode_image(base64.b64decode(body["image"]["content"]), Limits())
    prompt = Prompt(points=tuple(Point(point["x"], point["y"]) for point in body["prompt"]["points"]))
    options = CompletionOptions(num_samples=body["options"]["num_samples"], seed=body["options"]["seed"])
    samples = deoccluder.complete(photo, prompt, options).samples
    return {"samples": [base64.b64encode(encode_png(sample.rgba())).decode() for sample in samples]}


def locked() -> FastAPI:
    """One request at a time; who left is computed all the same."""
    app, lock = FastAPI(), asyncio.Lock()
    deoccluder, _ = load_deoccluder()

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {}

    @app.post("/v1/complete")
    async def complete(request: Request) -> JSONResponse:
        body = await request.json()
        async with lock:
            return JSONResponse(await asyncio.to_thread(completed, deoccluder, body))

    return app


def serve_batched(http_port: int) -> None:
    """Batches of whole requests, fixed when they begin."""
    from ray import serve

    app = FastAPI()

    @serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
    @serve.ingress(app)
    class Batched:
        def __init__(self) -> None:
            self._deoccluder, _ = load_deoccluder()
            self._pool = ThreadPoolExecutor(MAX_BATCH)

        @app.get("/readyz")
        async def ready(self) -> dict[str, str]:
            return {}

        @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT)
        async def together(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
            loop = asyncio.get_running_loop()
            calls = [loop.run_in_executor(self._pool, completed, self._deoccluder, body) for body in bodies]
            return list(await asyncio.gather(*calls))

        @app.post("/v1/complete")
        async def complete(self, request: Request) -> JSONResponse:
            return JSONResponse(await self.together(await request.json()))  # type: ignore[arg-type]

    serve.start(http_options={"host": "127.0.0.1", "port": http_port})
    serve.run(Batched.bind(), blocking=True)


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["lock", "batch"])
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int)
    options = parser.parse_args()
    if options.kind == "batch":
        serve_batched(options.http_port)
    else:
        uvicorn.run(locked(), host="127.0.0.1", port=options.http_port, log_level="warning")


if __name__ == "__main__":
    main()
