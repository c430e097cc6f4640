"""Which plan runs which rows, and whether the plans of a bundle may run at all. Nothing here touches a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from deocc_engines.compile.listing import Artefact, Listing
from deocc_engines.runtimes.card import Card

__all__ = ["PlanChoice", "choose_plans", "split"]


@dataclass(frozen=True)
class PlanChoice:
    """The plans to run, by call, smallest batch first; or why there are none.

    Attributes:
        refusal: in words; empty if the plans may run.
        identity: under which parity is recorded.
    """

    plans: dict[str, tuple[Artefact, ...]]
    name: str
    identity: str
    refusal: str = ""


def choose_plans(listing: Listing, calls: Iterable[str], card: Card, *, unverified: bool = False) -> PlanChoice:
    """The plans for this card and this version of the runtime, every call with the same set of batches or more.

    Args:
        unverified: also plans that were never compared with the reference on this card.
    """
    own = [a for a in listing.of("trt-rtx", "trt") if a.runtime == card.runtime and a.sm == card.sm]
    if not own:
        return _refused(_what_there_is(listing, card))
    dtype = _dtype(own)
    name = f"{card.module}-{dtype}"
    identity = f"{name}@{card.version}-sm{card.sm}"
    plans: dict[str, tuple[Artefact, ...]] = {}
    for call in calls:
        fitting = [a for a in own if a.call == call and a.dtype in (dtype, "f32")]
        if not fitting:
            return _refused(f"{call} is not compiled in {dtype} for sm{card.sm} with {card.runtime}")
        # Where a call is there in both types, the narrower one is what was asked for.
        by_rows = {a.batch[2]: a for a in sorted(fitting, key=lambda a: a.dtype != "f32")}
        plans[call] = tuple(by_rows[rows] for rows in sorted(by_rows))
    if not unverified and (why := _unverified(plans, identity)):
        return _refused(why)
    return PlanChoice(plans, name, identity)


def split(rows: int, batches: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(rows, batch) of each run: the smallest batch that holds all that is left, or the largest there is."""
    largest = max(batches)
    while rows > 0:
        batch = min((b for b in batches if b >= rows), default=largest)
        yield min(rows, batch), batch
        rows -= batch


def _refused(why: str) -> PlanChoice:
    return PlanChoice({}, "", "", why)


def _dtype(plans: list[Artefact]) -> str:
    """The type of the denoiser, which is where the work is; float16 where there are several."""
    there = {a.dtype for a in plans if a.call == "denoise"} or {a.dtype for a in plans}
    return next(dtype for dtype in ("f16", "bf16", "f32") if dtype in there)


def _what_there_is(listing: Listing, card: Card) -> str:
    there = sorted({f"sm{a.sm} with {a.runtime}" for a in listing.of("trt-rtx", "trt")})
    if not there:
        return "the bundle holds no plans"
    return f"the bundle holds plans for {', '.join(there)}, none for sm{card.sm} with {card.runtime}"


def _unverified(plans: dict[str, tuple[Artefact, ...]], identity: str) -> str:
    every = [artefact for artefacts in plans.values() for artefact in artefacts]
    for artefact in every:
        verdict = artefact.parity.get(identity)
        rows = artefact.batch[2]
        if verdict is not None and not verdict.passed:
            return f"{artefact.call} of {rows} failed parity: {verdict.value:.3g}, allowed {verdict.threshold:.3g}"
        if verdict is None:
            return (
                f"{artefact.call} of {rows} rows was never compared with the reference as {identity}; "
                "'deocc engines verify' does"
            )
    return ""
