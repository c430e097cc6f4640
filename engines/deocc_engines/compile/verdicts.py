"""What a comparison with the reference said, and what is served because of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deocc_engines.compile.listing import Verdict
from deocc_engines.errors import InvalidBundle
from deocc_engines.folders import cache_folder, converted_name

__all__ = ["Verdicts", "verdicts_file"]


@dataclass(frozen=True)
class Verdicts:
    """Of one engine on one runtime.

    Attributes:
        calls: by name; the worst over inputs and profiles.
        image: on the final image, by measure.
    """

    calls: dict[str, Verdict] = field(default_factory=dict)
    image: tuple[Verdict, ...] = ()

    @property
    def passed(self) -> bool:
        return not any(self.failures())

    def failures(self) -> Iterator[str]:
        """In words."""
        for name, verdict in (*self.calls.items(), *(("the image", verdict) for verdict in self.image)):
            if not verdict.passed:
                yield f"{name}: {verdict.measure} {verdict.value:.3g}, allowed {verdict.threshold:.3g}"

    def check(self, runtime: str) -> None:
        """Raises InvalidBundle if anything failed: such an engine is not served."""
        if not self.passed:
            raise InvalidBundle(f"parity failed on {runtime}: {'; '.join(self.failures())}")

    @classmethod
    def read(cls, file: Path) -> Verdicts:
        """What was written, or nothing where nothing was."""
        if not file.is_file():
            return cls()
        content = json.loads(file.read_text())
        calls = {name: Verdict(**verdict) for name, verdict in content["calls"].items()}
        return cls(calls, tuple(Verdict(**verdict) for verdict in content["image"]))

    def write(self, file: Path) -> None:
        """Replaces the file at once."""
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_name(f".{file.name}.{os.getpid()}")
        own.write_text(json.dumps(asdict(self), indent=2) + "\n")
        own.replace(file)


def verdicts_file(engine_id: str, runtime: str) -> Path:
    """Where verdicts lie on what no bundle holds: networks converted when the engine starts."""
    return cache_folder() / "verdicts" / converted_name(engine_id) / f"{runtime}.json"
