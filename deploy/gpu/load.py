"""The single-process host under load: so many requests in flight for so many seconds. One JSON document at the end."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from deocc_service.surroundings import free_port

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
START_LIMIT = 1800.0  # seconds; engines are loaded and warmed up before the host is ready
TIMEOUT = 300.0


def main() -> None:
    """Serves one bundle and asks it for completions."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--in-flight", default="1,4,8")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    example = json.loads((EXAMPLES / "examples.json").read_text())[0]
    content = (EXAMPLES / example["file"]).read_bytes()
    with _served(options.bundle.resolve()) as (url, starting), httpx.Client(base_url=url, timeout=TIMEOUT) as http:
        engine = http.get("/v1/engines").raise_for_status().json()["engines"][0]
        uploaded = http.post("/v1/images", content=content, headers={"Content-Type": "image/png"}).raise_for_status()
        body = {
            "image": {"image_id": uploaded.json()["image_id"]},
            "prompt": {"points": [dict(zip("xy", example["point"], strict=True))]},
            "options": {"steps": options.steps},
        }
        levels = [_level(http, body, int(count), options.seconds) for count in options.in_flight.split(",")]
    result = {"runtimes": engine["runtimes"], "start_seconds": starting, "levels": levels}
    print(json.dumps(result))  # noqa: T201 - the result


@contextmanager
def _served(bundle: Path) -> Iterator[tuple[str, float]]:
    ports = [str(free_port()) for _ in range(2)]
    command = (sys.executable, "-c", "from deocc.cli import main; main()", "serve", "--local", "--engine", str(bundle))
    started = time.perf_counter()
    url = f"http://127.0.0.1:{ports[0]}"
    with tempfile.TemporaryFile() as log:  # a line a request: only its end matters, and that if the host fails
        host = subprocess.Popen(  # noqa: S603 - our own command
            [*command, "--http-port", ports[0], "--grpc-port", ports[1]], stdout=subprocess.DEVNULL, stderr=log
        )
        try:
            while not _ready(url):
                if host.poll() is not None or time.perf_counter() - started > START_LIMIT:
                    raise SystemExit(f"the host did not start (status {host.poll()}): {_end_of(log)}")
                time.sleep(0.5)
            yield url, time.perf_counter() - started
        finally:
            host.terminate()
            host.wait(60)


def _level(http: httpx.Client, body: dict[str, Any], in_flight: int, seconds: float) -> dict[str, Any]:
    """Every client asks again as soon as it is answered."""
    end = time.perf_counter() + seconds

    def client(_: int) -> tuple[list[float], dict[str, int]]:
        own: list[float] = []
        refused: dict[str, int] = {}
        while time.perf_counter() < end:
            started = time.perf_counter()
            answer = http.post("/v1/complete", json=body)
            if answer.is_success:
                own.append(time.perf_counter() - started)
            else:
                refused[str(answer.status_code)] = refused.get(str(answer.status_code), 0) + 1
                time.sleep(0.1)
        return own, refused

    started = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as pool:
        found = list(pool.map(client, range(in_flight)))
    took = time.perf_counter() - started
    latencies = sorted(latency for own, _ in found for latency in own)
    refused: dict[str, int] = {}
    for _, own in found:
        for status, count in own.items():
            refused[status] = refused.get(status, 0) + count
    return {
        "in_flight": in_flight,
        "images_a_second": len(latencies) / took,
        "p50": statistics.median(latencies) if latencies else None,
        "p95": latencies[min(len(latencies) - 1, round(0.95 * len(latencies)))] if latencies else None,
        "refused": refused,
    }


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if '"event": "request"' not in line]
    return " | ".join(lines[-5:])


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
