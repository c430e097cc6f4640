"""What was compiled for a bundle: ``compiled.json`` beside its manifest.

::

    compiled.json                                         this listing
    onnx/<call>/model.onnx (+ model.onnx.data)            float32 or narrower
    openvino/<call>/model.xml, model.bin                  OpenVINO's own format
    trt/<call>/<runtime>-<version>/sm<CC>/<dtype>-b<min>-<opt>-<max>.plan, and a .json of what it was made from

A call is one of `components.calls_of`. The listing is no part of the engine's identity: `engine_id` stays the hash of
the manifest, so compiling for another card changes neither an engine's name nor any result's provenance. It names the
engine that it was compiled from, and is refused beside any other.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deocc_engines.errors import InvalidBundle

__all__ = ["FOLDERS", "LISTING", "Artefact", "Dtype", "Listing", "Target", "Verdict"]

Target = Literal["openvino", "onnx", "trt-rtx", "trt"]
Dtype = Literal["f32", "f16", "bf16"]

LISTING = "compiled.json"
SCHEMA = 1
# Where compiled files lie, and of which kinds they may be there.
FOLDERS = {
    "onnx": {".onnx", ".data"},
    "openvino": {".xml", ".bin"},
    "trt": {".plan", ".json"},
}


@dataclass(frozen=True)
class Verdict:
    """One comparison with the reference.

    Attributes:
        measure: "relative_l2", "mask_iou", "psnr_visible" or "psnr_invisible".
        threshold: the worst value that passes.
    """

    measure: str
    value: float
    threshold: float
    passed: bool


@dataclass(frozen=True)
class Artefact:
    """One call compiled for one target.

    Attributes:
        runtime: what builds and runs it, with its exact version, e.g. "tensorrt_rtx-1.7.1.116".
        dtype: of OpenVINO's files that of the weights; the processor says the arithmetic.
        sm: compute capability without a dot, e.g. "89"; empty where no GPU is meant.
        batch: (min, opt, max) rows.
        key: of everything that it was made from (`compile.key`).
        files: sha256 and size by path in the bundle.
        parity: what `verify` found, by the name of the runtime that served it.
    """

    call: str
    target: Target
    runtime: str
    dtype: Dtype
    sm: str
    batch: tuple[int, int, int]
    key: str
    files: dict[str, dict[str, Any]]
    parity: dict[str, Verdict] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where its files lie in the bundle."""
        if self.target in ("onnx", "openvino"):
            return f"{self.target}/{self.call}"
        return f"trt/{self.call}/{self.runtime}/sm{self.sm}"

    @property
    def plan(self) -> str | None:
        """The path of TensorRT's plan."""
        if not self.target.startswith("trt"):
            return None
        return f"{self.folder}/{self.dtype}-b{'-'.join(map(str, self.batch))}.plan"

    def said_beside(self) -> dict[str, Any]:
        """What the file beside a plan must agree on."""
        assert self.plan is not None
        names = ("call", "target", "runtime", "dtype", "sm", "key")
        own = {name: getattr(self, name) for name in names}
        return {**own, "batch": list(self.batch), "sha256": self.files[self.plan]["sha256"]}

    def provenance(self, bundle: Path) -> dict[str, Any]:
        """The file beside a plan: what it was made from, and the names of its tensors.

        Raises:
            InvalidBundle: it is missing or damaged.
        """
        assert self.plan is not None
        beside = Path(self.plan).with_suffix(".json")
        try:
            said: dict[str, Any] = dict(json.loads((bundle / beside).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise InvalidBundle(f"{beside.as_posix()} is missing or damaged") from error
        return said

    @property
    def place(self) -> tuple[object, ...]:
        """Artefacts of the same place replace each other."""
        return (self.folder, self.plan)

    def file(self, suffix: str) -> str:
        """The path in the bundle of the one file of this kind."""
        return next(name for name in self.files if name.endswith(suffix))


@dataclass(frozen=True)
class Listing:
    """All artefacts of a bundle.

    Attributes:
        engine_id: of the bundle that they were compiled from.
        image: verdicts on the final image, by the name of the runtime.
    """

    engine_id: str
    artefacts: tuple[Artefact, ...] = ()
    image: dict[str, tuple[Verdict, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, bundle: Path, engine_id: str) -> Listing:
        """The listing of a bundle; an empty one where nothing was compiled.

        Raises:
            InvalidBundle: it is damaged, or of another engine.
        """
        file = bundle / LISTING
        if not file.is_file():
            return cls(engine_id)
        try:
            content = json.loads(file.read_bytes())
            if content["schema"] != SCHEMA:
                raise InvalidBundle(f"{LISTING} has schema {content['schema']}; this version reads schema {SCHEMA}")
            listing = cls(
                content["engine_id"],
                tuple(_artefact(entry) for entry in content["artefacts"]),
                {name: tuple(Verdict(**v) for v in verdicts) for name, verdicts in content["image"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidBundle(f"{LISTING} is damaged") from error
        if listing.engine_id != engine_id:
            raise InvalidBundle(
                f"{LISTING} is of {listing.engine_id}, this engine is {engine_id}; "
                f"remove it with {', '.join(FOLDERS)} and compile again"
            )
        return listing

    def write(self, bundle: Path) -> None:
        """Replaces the file at once, so that nobody reads half of it."""
        content = {"schema": SCHEMA, **dataclasses.asdict(self)}
        own = bundle / f".{LISTING}.{os.getpid()}"
        own.write_text(json.dumps(content, indent=2) + "\n")
        own.replace(bundle / LISTING)

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """sha256 and size of every compiled file."""
        return {name: entry for artefact in self.artefacts for name, entry in artefact.files.items()}

    def check(self) -> None:
        """Raises InvalidBundle unless every artefact lies where one of its kind belongs."""
        for artefact in self.artefacts:
            for name in artefact.files:
                if Path(name).parent.as_posix() != artefact.folder:
                    raise InvalidBundle(f"{name} is no place for {artefact.call} on {artefact.runtime}")
            if artefact.plan not in (None, *artefact.files):
                raise InvalidBundle(f"{LISTING} names no {artefact.plan}")

    def check_provenance(self, bundle: Path) -> None:
        """Raises InvalidBundle unless each plan is the one that the file beside it tells of."""
        for artefact in self.artefacts:
            if artefact.plan is None:
                continue
            beside = Path(artefact.plan).with_suffix(".json").as_posix()
            said = artefact.provenance(bundle)
            listed = artefact.said_beside()
            for name, value in listed.items():
                if said.get(name) != value:
                    raise InvalidBundle(f"{beside} says {name} {said.get(name)!r}, {LISTING} {value!r}")

    def of(self, *targets: Target) -> tuple[Artefact, ...]:
        return tuple(artefact for artefact in self.artefacts if artefact.target in targets)

    def with_artefacts(self, added: Iterable[Artefact]) -> Listing:
        """Those of the same place are replaced; what was said of the image no longer holds for their target."""
        new = {artefact.place: artefact for artefact in added}
        kept = tuple(artefact for artefact in self.artefacts if artefact.place not in new)
        changed = {artefact.key for artefact in new.values()} - {artefact.key for artefact in self.artefacts}
        return dataclasses.replace(self, artefacts=kept + tuple(new.values()), image={} if changed else self.image)

    def with_parity(
        self, runtime: str, by_key: Mapping[str, Verdict], image: tuple[Verdict, ...] | None = None
    ) -> Listing:
        """With what `verify` found on one runtime."""
        artefacts = tuple(
            dataclasses.replace(a, parity={**a.parity, runtime: by_key[a.key]}) if a.key in by_key else a
            for a in self.artefacts
        )
        images = self.image if image is None else {**self.image, runtime: image}
        return dataclasses.replace(self, artefacts=artefacts, image=images)


def _artefact(entry: dict[str, Any]) -> Artefact:
    low, best, high = entry["batch"]
    parity = {name: Verdict(**verdict) for name, verdict in entry["parity"].items()}
    return Artefact(**{**entry, "batch": (low, best, high), "parity": parity})
