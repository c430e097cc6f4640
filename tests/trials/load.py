"""Does the service stay right and small under load? 16 clients, mixed requests, both protocols, for minutes.

python -m tests.trials.load --host local
python -m tests.trials.load --host ray

Every answer is compared with the answer to the same request alone; refusals are counted, anything else ends the trial
with status 1. Memory is sampled all along; its slope is that of the second half.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import deocc
from tests.trials.service import Service, Work, mixed_work, serving

SAMPLE_SECONDS = 2.0


class Memory(threading.Thread):
    """Samples (seconds, MB)."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self._service, self._over = service, threading.Event()
        self.samples: list[tuple[float, float]] = []

    def run(self) -> None:
        started = time.monotonic()
        while not self._over.wait(SAMPLE_SECONDS):
            self.samples.append((time.monotonic() - started, self._service.memory()))

    def stop(self) -> tuple[list[int], float]:
        """MB at each minute, and MB a minute over the second half."""
        self._over.set()
        self.join()
        later = np.array(self.samples[len(self.samples) // 2 :])
        by_minute = [round(mb) for _, mb in self.samples[:: round(60 / SAMPLE_SECONDS)]]
        return by_minute, float(np.polyfit(later[:, 0], later[:, 1], 1)[0] * 60)


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", choices=["local", "ray"], default="local")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args()
    with serving(options.host) as service:
        report = _trial(service, mixed_work(options.requests), options.clients, options.minutes * 60)
    print(json.dumps({"host": options.host, **report}, indent=1))  # noqa: T201 - the result
    if report["wrong"] or report["failed"]:
        sys.exit(1)


def _trial(service: Service, work: list[Work], clients: int, seconds: float) -> dict[str, object]:
    with service.client() as client:
        alone = {item.key: item.ask(client) for item in work}
    memory = Memory(service)
    memory.start()
    outcomes: Counter[str] = Counter()
    latencies: list[float] = []
    wrong: list[str] = []
    started = time.monotonic()
    turn = iter(range(sys.maxsize))
    lock = threading.Lock()

    def ask_on(number: int) -> None:
        with service.client(number, retries=0) as client:
            while True:
                with lock:
                    count = next(turn)
                if count >= len(work) and time.monotonic() - started > seconds:
                    return
                item = work[count % len(work)]
                asked = time.monotonic()
                try:
                    same = item.ask(client) == alone[item.key]
                except deocc.Overloaded as error:
                    with lock:
                        outcomes[error.reason] += 1
                    time.sleep(min(error.retry_after or 1.0, 5.0))
                    continue
                except deocc.DeoccError as error:
                    with lock:
                        outcomes[f"failed: {error.reason}"] += 1
                    continue
                with lock:
                    latencies.append(time.monotonic() - asked)
                    outcomes["answered"] += 1
                    if not same:
                        wrong.append(item.key)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask_on, range(clients)))
    took = time.monotonic() - started
    by_minute, slope = memory.stop()
    latencies.sort()
    return {
        "seconds": round(took, 1),
        "outcomes": dict(outcomes),
        "failed": sum(count for name, count in outcomes.items() if name.startswith("failed")),
        "wrong": wrong,
        "answers_a_second": round(outcomes["answered"] / took, 2),
        "p50": round(statistics.median(latencies), 3),
        "p95": round(latencies[round(0.95 * (len(latencies) - 1))], 3),
        "memory_mb_at_each_minute": by_minute,
        "memory_mb_a_minute": round(slope, 2),
    }


if __name__ == "__main__":
    main()
