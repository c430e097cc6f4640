"""The service as its own processes, and the work that trials give it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import deocc
from deocc_service.surroundings import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
START_LIMIT = 180.0  # seconds


@dataclass(frozen=True)
class Work:
    """One request for a completion; `key` names it."""

    file: str
    arguments: tuple[tuple[str, Any], ...]

    @property
    def key(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]

    def ask(self, client: deocc.Client) -> str:
        """The hash of all its pictures."""
        return hash_of(client.complete(EXAMPLES / self.file, **dict(self.arguments)))


def hash_of(completion: deocc.Completion) -> str:
    """Of everything that is drawn."""
    digest = hashlib.sha256(completion.modal.png)
    for sample in completion.samples:
        digest.update(sample.png)
        digest.update(sample.mask_png)
    return digest.hexdigest()


def mixed_work(count: int, seed: int = 0) -> list[Work]:
    """Clicks on the examples: mostly one sample, some two, four or eight; both presets; some with words."""
    drawn = random.Random(seed)
    examples = json.loads((EXAMPLES / "examples.json").read_text())
    work = []
    for _ in range(count):
        example = drawn.choice(examples)
        x, y = (value + drawn.uniform(-8, 8) for value in example["point"])
        arguments: dict[str, Any] = {"points": [(x, y)], "seed": drawn.randrange(2**32)}
        arguments["num_samples"] = drawn.choice([1, 1, 1, 1, 2, 4, 8])
        if drawn.random() < 0.3:
            arguments["text"] = example["text"]
        if drawn.random() < 0.1:
            arguments |= {"preset": "quality", "num_samples": 1}
        work.append(Work(example["file"], tuple(arguments.items())))
    return work


@dataclass(frozen=True)
class Service:
    """A host in processes of its own."""

    process: subprocess.Popen[bytes]
    url: str
    grpc: str

    def client(self, number: int = 0, **options: Any) -> deocc.Client:
        """Every second one by gRPC."""
        way = {"grpc": self.grpc} if number % 2 else {"url": self.url}
        return deocc.Client(**way, **options)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def until_answers(self, limit: float = 90.0) -> float:
        """Seconds until a completion succeeds over both protocols."""
        started = time.monotonic()
        first = mixed_work(1)[0]
        for number in (0, 1):
            while True:
                try:
                    with self.client(number, timeout=10, retries=0) as client:
                        first.ask(client)
                    break
                except deocc.DeoccError:
                    if time.monotonic() - started > limit:
                        raise
                    time.sleep(0.1)
        return time.monotonic() - started

    def processes(self, title: str = "") -> list[int]:
        """Ids of the host's process and all below it whose title starts so."""
        parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
        own, found = [self.process.pid], []
        while own:
            pid = own.pop()
            found.append(pid)
            own += [child for child, parent in parents.items() if parent == pid]
        return [pid for pid in found if _title(pid).startswith(title)]

    def memory(self) -> float:
        """MB held by all of its processes, shared pages counted once (proportional set size)."""
        total = 0
        for pid in self.processes():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:  # gone meanwhile
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    def kill(self, title: str, count: int = 1) -> int:
        """kill -9 the first so many processes of this title; how many there were."""
        found = self.processes(title)
        for pid in found[:count]:
            os.kill(pid, signal.SIGKILL)
        return len(found)


@contextmanager
def serving(host: str, *command: str, **settings: object) -> Iterator[Service]:
    """`deocc serve` of the embedded engine, on "ray" or "local"; or another command that serves on the same ports."""
    http, grpc = (free_port() for _ in range(2))
    settings = {"metrics_port": 0, **settings}
    environ = {**os.environ, **{f"DEOCC_{name.upper()}": str(value) for name, value in settings.items()}}
    start = "from deocc.cli import main; main()"
    run = command or (sys.executable, "-c", start, "serve", *(["--local"] if host == "local" else []))
    process = subprocess.Popen(
        [*run, "--http-port", str(http), "--grpc-port", str(grpc)],
        env=environ,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    service = Service(process, f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    try:
        started = time.monotonic()
        while not service.ready():
            if process.poll() is not None or time.monotonic() - started > START_LIMIT:
                raise SystemExit(f"the host did not start (status {process.poll()})")
            time.sleep(0.3)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _parent(path: Path) -> int:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
