"""`deocc engines verify`: what a bundle would be served as, against ONNX Runtime in float32."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from deocc_engines.bundle import Bundle
from deocc_engines.compile.export import graphs_folder
from deocc_engines.compile.external_data import check_external_data
from deocc_engines.compile.fixed import ORDER, FixedInputs, Row, scene
from deocc_engines.compile.listing import Listing, Verdict
from deocc_engines.compile.thresholds import Thresholds
from deocc_engines.compile.verdicts import Verdicts, verdicts_file
from deocc_engines.completion import CompletionOptions, Sample
from deocc_engines.components import Call, Networks, calls_of, load_networks
from deocc_engines.errors import EngineFailure
from deocc_engines.image import Photo
from deocc_engines.loading import deoccluder_of
from deocc_engines.prompt import Prompt
from deocc_engines.runtimes import Runtime
from deocc_engines.runtimes.onnx import OnnxCompiler, version_here
from deocc_engines.runtimes.selection import RuntimeName, runtime_of

__all__ = ["Compared", "Verification", "relative_l2", "verify_engine"]


@dataclass(frozen=True)
class Compared:
    """One verdict is there; `call` is empty for the final image."""

    call: str
    verdict: Verdict


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        runtime: its name.
        identity: under which the verdicts were recorded.
    """

    engine_id: str
    runtime: str
    identity: str
    verdicts: Verdicts


def verify_engine(
    bundle: Bundle,
    wanted: RuntimeName = "auto",
    *,
    image: bool = True,
    on_event: Callable[[Compared], None] = lambda _: None,
) -> Verification:
    """Checks hashes, compares every call and the final image, and records the verdicts: loading looks at them.

    Args:
        image: False leaves the final image out.
        on_event: called after each comparison.

    Raises:
        InvalidBundle: the bundle is altered, or a tensor of it is wrong.
        Unavailable: the runtime is not to be had on this machine.
    """
    bundle.check()
    for artefact in bundle.compiled.of("onnx"):
        check_external_data(bundle.path / artefact.file(".onnx"))
    networks = load_networks(bundle)
    calls = calls_of(networks)
    reference = _reference(bundle, calls)
    served = runtime_of(bundle, calls, wanted, os.cpu_count() or 1, unverified=True)
    thresholds = Thresholds.of(bundle.manifest, {name: call.exact for name, call in calls.items()})
    inputs = FixedInputs(bundle, networks)
    found: dict[str, Verdict] = {}
    for name in filter(calls.__contains__, ORDER):
        rows = inputs.rows(name)
        expected = [getattr(reference, name)(*row) for row in rows]
        inputs.answered(name, expected)
        plans = {artefact.batch[2] for artefact in served.artefacts if artefact.call == name}
        batches = sorted(plans or {1, *(served.sizes if calls[name].batched else ())})
        worst = max((_distance(getattr(served, name), rows, expected, batch) for batch in batches), key=_or_infinite)
        found[name] = thresholds.call(name, worst)
        on_event(Compared(name, found[name]))
    verdicts = Verdicts(found)
    if image:
        verdicts = dataclasses.replace(verdicts, image=_image(bundle, networks, reference, served, thresholds))
        for verdict in verdicts.image:
            on_event(Compared("", verdict))
    _record(bundle, served, verdicts)
    return Verification(bundle.engine_id, served.name, served.identity, verdicts)


def relative_l2(given: Any, expected: Any) -> float:
    """|given − expected| / |expected|, the worst of several outputs; infinite if anything is not finite."""
    pairs = zip(given, expected, strict=True) if isinstance(expected, tuple) else [(given, expected)]
    found = []
    for own, wanted in pairs:
        distance = float((own.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-12))
        found.append(distance if own.shape == wanted.shape else math.inf)
    return max(map(_or_infinite, found))


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _reference(bundle: Bundle, calls: dict[str, Call]) -> Runtime:
    # Exported anew from the checked weights, never from what the bundle holds as compiled.
    return Runtime.compiled("onnx-f32", calls, OnnxCompiler(graphs_folder(bundle.engine_id)), version_here())


def _distance(call: Callable[..., Any], rows: list[Row], expected: list[Any], batch: int) -> float:
    """The worst over rows, each repeated to fill a batch, so that every profile is looked at."""
    distances = []
    for row, wanted in zip(rows, expected, strict=True):
        given = call(*(tensor.repeat(batch, *(1 for _ in tensor.shape[1:])) for tensor in row))
        for i in range(batch):
            single = tuple(part[i : i + 1] for part in given) if isinstance(given, tuple) else given[i : i + 1]
            distances.append(relative_l2(single, wanted))
    return max(distances)


def _image(
    bundle: Bundle, networks: Networks, reference: Runtime, served: Runtime, thresholds: Thresholds
) -> tuple[Verdict, ...]:
    pixels, modal = scene()
    photo = Photo(pixels, "sha256:parity")
    options = CompletionOptions(steps=thresholds.steps, keep_visible=False)

    def completed(runtime: Runtime) -> Sample:
        return deoccluder_of(bundle, networks, runtime).complete(photo, Prompt(mask=modal), options).samples[0]

    expected = completed(reference)
    try:
        given = completed(served)
    except EngineFailure:  # numbers that are not finite
        return tuple(thresholds.final(measure, 0.0) for measure in thresholds.image)
    hidden = expected.amodal_mask() & ~modal
    return (
        thresholds.final("mask_iou", _iou(given.amodal_mask(), expected.amodal_mask())),
        thresholds.final("psnr_visible", _psnr(given.rgba(), expected.rgba(), modal & expected.amodal_mask())),
        thresholds.final("psnr_invisible", _psnr(given.rgba(), expected.rgba(), hidden)),
    )


def _iou(a: Bool[np.ndarray, "h w"], b: Bool[np.ndarray, "h w"]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def _psnr(a: UInt8[np.ndarray, "h w 4"], b: UInt8[np.ndarray, "h w 4"], where: Bool[np.ndarray, "h w"]) -> float:
    """dB, of colour; 99 where nothing differs, so that it can be written as JSON."""
    difference = a[where][:, :3].astype(np.float64) - b[where][:, :3]
    error = float((difference**2).mean()) if difference.size else 0.0
    return min(99.0, 10 * math.log10(255**2 / error)) if error > 0 else 99.0


def _record(bundle: Bundle, served: Runtime, verdicts: Verdicts) -> None:
    """In the bundle's listing what is about its own files, in the cache the rest."""
    by_key = {artefact.key: verdicts.calls[artefact.call] for artefact in served.artefacts}
    if by_key:
        listing = Listing.read(bundle.path, bundle.engine_id)
        listing.with_parity(served.identity, by_key, verdicts.image or None).write(bundle.path)
    compiled = {artefact.call for artefact in served.artefacts}
    rest = {name: verdict for name, verdict in verdicts.calls.items() if name not in compiled}
    if rest:
        Verdicts(rest, verdicts.image).write(verdicts_file(bundle.engine_id, served.identity))
