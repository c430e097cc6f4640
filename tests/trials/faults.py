"""What happens to eight requests in flight when something breaks, and how soon the service is well again.

python -m tests.trials.faults --host ray [--retries 3] [--only edge]
python -m tests.trials.faults --host local
python -m tests.trials.faults --host nodes  # the models' node of a Ray cluster of two, on this machine

An answer must be the one that the request gets alone; an error must be one of deocc's own. Without retries of the
client's one sees what the service does by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import deocc
from tests.trials.service import EXAMPLES, Service, Work, mixed_work, serving

IN_FLIGHT = 8
BEGUN = 0.7  # seconds after which something breaks: with eight requests on two cores, amid the work
REPLACED = 120.0  # seconds within which a new version has taken over

SWITCH = Path(tempfile.gettempdir()) / f"deocc-broken-{os.getpid()}"

Fault = Callable[[Service], None]


def _kill(title: str) -> Fault:
    def fault(service: Service) -> None:
        if not service.kill(f"ray::{title}"):
            raise SystemExit(f"there is no process {title}")

    return fault


def _terminate(service: Service) -> None:
    service.process.send_signal(signal.SIGTERM)


def _broken(what: str, seconds: float) -> Fault:
    """The engine or the clock, for a while."""

    def fault(service: Service) -> None:
        SWITCH.write_text(what)
        time.sleep(seconds)
        SWITCH.unlink()

    return fault


def _disk_full(service: Service) -> None:
    """No process that keeps images can write a byte to any file; an upload is refused, requests are not."""
    pids = service.processes("ray::ServeReplica:deocc:Edge") or [service.process.pid]
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        with service.client(retries=0) as client:
            client.upload((EXAMPLES / "fruit.png").read_bytes() + b"another")
        raise SystemExit("an image was kept on a full disk")
    except deocc.Overloaded:
        pass
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _vanish(service: Service) -> None:
    """Eight clients more, which are killed as soon as they have asked."""
    script = (
        "import sys, threading, deocc\n"
        "def ask(seed):\n"
        "    deocc.Client(sys.argv[1]).complete(sys.argv[2], points=[(250, 250)], num_samples=8, seed=seed)\n"
        "for seed in range(8): threading.Thread(target=ask, args=(seed,)).start()\n"
    )
    client = subprocess.Popen([sys.executable, "-c", script, service.url, str(EXAMPLES / "fruit.png")])
    time.sleep(2.5)
    os.kill(client.pid, signal.SIGKILL)
    client.wait()


def _new_version(service: Service) -> None:
    """Every replica is replaced while somebody asks all along, and nothing that was asked is lost."""
    first = mixed_work(1)[0]
    before = set(service.processes("ray::ServeReplica:deocc:"))
    service.process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + REPLACED
    with service.client(retries=0) as client:
        while before & set(service.processes("ray::ServeReplica:deocc:")):
            first.ask(client)
            if time.monotonic() > end:
                raise SystemExit(f"the old version is still there after {REPLACED:g} s")


FAULTS: dict[str, dict[str, Fault]] = {
    "ray": {
        "completer": _kill("ServeReplica:deocc:Completer"),
        "segmenter": _kill("ServeReplica:deocc:Segmenter"),
        "edge": _kill("ServeReplica:deocc:Edge"),
        "proxy": _kill("ProxyActor"),
        "vanish": _vanish,
        "step raises": _broken("raise", 0.1),
        "step gives NaN": _broken("nan", 0.1),
        "disk full": _disk_full,
        "new version": _new_version,
        "sigterm": _terminate,  # the last one: there is nothing after it
    },
    "local": {
        "vanish": _vanish,
        "step raises": _broken("raise", 0.1),
        "step gives NaN": _broken("nan", 0.1),
        "clock a day ahead": _broken("86400", 2.0),
        "disk full": _disk_full,
        "sigterm": _terminate,
    },
    "nodes": {},
}


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", choices=list(FAULTS), default="ray")
    parser.add_argument("--retries", type=int, default=0)
    parser.add_argument("--only")
    options = parser.parse_args()
    work = [item for item in mixed_work(60, seed=1) if "quality" not in dict(item.arguments).values()][:IN_FLIGHT]
    report = {}
    with _serving(options.host) as (service, faults):
        with service.client() as client:
            alone = {item.key: item.ask(client) for item in work}
        for name, fault in faults.items():
            if options.only in (None, name):
                report[name] = _tried(service, work, alone, fault, options.retries, ends=name == "sigterm")
    print(json.dumps({"host": options.host, "retries": options.retries, **report}, indent=1))  # noqa: T201
    if any(set(found["outcomes"]) & {"wrong", "untyped"} for found in report.values()):
        sys.exit(1)


@contextmanager
def _serving(host: str) -> Iterator[tuple[Service, dict[str, Fault]]]:
    """A host, and what can break in it."""
    if host != "nodes":
        with serving("other", sys.executable, "-m", "tests.trials.broken", host, str(SWITCH)) as service:
            yield service, FAULTS[host]
        return
    from deploy.cluster.two_nodes import TwoNodes

    with TwoNodes() as cluster:
        this = subprocess.Popen(["sleep", "infinity"])  # its processes are those of the cluster, not to be looked at

        def lose_node(service: Service) -> None:
            cluster.lose_models_node()
            cluster.add_models_node()

        try:
            yield (
                Service(this, f"http://127.0.0.1:{cluster.http_port}", f"127.0.0.1:{cluster.grpc_port}"),
                {"node lost": lose_node},
            )
        finally:
            this.kill()


def _tried(
    service: Service,
    work: list[Work],
    alone: dict[str, str],
    fault: Fault,
    retries: int,
    *,
    ends: bool,
) -> dict[str, object]:
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def ask(number: int) -> None:
        item = work[number]
        try:
            with service.client(number, retries=retries, timeout=120) as client:
                outcome = "answered" if item.ask(client) == alone[item.key] else "wrong"
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
            outcome = type(error).__name__ if isinstance(error, deocc.DeoccError) else "untyped"
        with lock:
            outcomes[outcome] += 1

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        asked = [pool.submit(ask, number) for number in range(IN_FLIGHT)]
        time.sleep(BEGUN)
        broken = time.monotonic()
        fault(service)
        well = None if ends else service.until_answers()
        for call in asked:
            call.result()
    found: dict[str, object] = {"outcomes": dict(outcomes), "all_told_after": round(time.monotonic() - broken, 1)}
    if ends:
        found |= {"status": service.process.wait(60), "gone_after": round(time.monotonic() - broken, 1)}
    else:
        found["well_after"] = round(well or 0.0, 1)
    return found


if __name__ == "__main__":
    main()
