"""Which tensor of a file is which tensor of a network, and what is wrong where there is none."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from torch import nn

from deocc_engines.convert.tensors import StoredTensor, Tensors
from deocc_engines.errors import InvalidBundle

__all__ = ["Spellings", "agreement", "expected_of", "itself", "matched", "older_attention", "prefix_of"]

Shape = tuple[int, ...]
# A name in one of our networks to its names in published files, the likeliest first.
Spellings = Callable[[str], tuple[str, ...]]

SHOWN = 5  # names of each kind of fault
RENAMED = 32  # missing names at most for which a likeness is sought; with more, it is another network


def itself(name: str) -> tuple[str, ...]:
    """Files that call a tensor as we do."""
    return (name,)


def older_attention(name: str) -> tuple[str, ...]:
    """Attention inside autoencoders has had two spellings in diffusers."""
    if ".attentions." not in name:
        return (name,)
    older = name.replace(".to_out.0.", ".proj_attn.")
    for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
        older = older.replace(f".to_{ours}.", f".{theirs}.")
    return (name, older)


def expected_of(module: nn.Module, within: str = "") -> dict[str, Shape]:
    """Shapes by name of the tensors that a network wants, those below `within` and without it."""
    state = module.state_dict()
    return {name.removeprefix(within): tuple(t.shape) for name, t in state.items() if name.startswith(within)}


def prefix_of(tensors: Iterable[str], names: Iterable[str], spellings: Spellings = itself) -> str:
    """What wrappers put before the names ("module.", "unet."): the prefix under which most of them are found."""
    wanted = {spelling for name in names for spelling in spellings(name)}
    found: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                found["".join(f"{part}." for part in parts[:start])] += 1
    return max(found, key=lambda prefix: (found[prefix], -len(prefix)), default="")


def agreement(tensors: Tensors, expected: Mapping[str, Shape], spellings: Spellings = itself) -> float:
    """Share of the expected tensors that are there in their shape."""
    prefix = prefix_of(tensors, expected, spellings)
    taken = _found(tensors, expected, spellings, prefix)
    return sum(tensors[taken[name]].shape == shape for name, shape in expected.items() if name in taken) / len(expected)


def matched(
    tensors: Tensors,
    expected: Mapping[str, Shape],
    *,
    where: str,
    spellings: Spellings = itself,
    ignored: Callable[[str], bool] = lambda name: False,
) -> dict[str, StoredTensor]:
    """The expected tensors by our names.

    Tensors outside the network's own prefix belong to something else and are passed over.

    Args:
        where: begins the message, e.g. "unet, in last.ckpt".
        ignored: says of a name below the prefix that it may be there though the network has no such tensor.

    Raises:
        InvalidBundle: tensors are missing, renamed, reshaped or unexpected; each kind with its names.
    """
    prefix = prefix_of(tensors, expected, spellings)
    taken = _found(tensors, expected, spellings, prefix)
    used = set(taken.values())
    missing = [name for name in expected if name not in taken]
    extra = [
        name
        for name in tensors
        if name.startswith(prefix) and name not in used and not ignored(name.removeprefix(prefix))
    ]
    renamed = _renamed(missing, extra, tensors, expected)
    reshaped = [
        f"{theirs} has shape {list(tensors[theirs].shape)}, not {list(expected[name])}"
        for name, theirs in taken.items()
        if tensors[theirs].shape != expected[name]
    ]
    faults = [
        _listed("missing", [prefix + name for name in missing if name not in renamed]),
        _listed("renamed", [f"{prefix}{name} seems to be {theirs}" for name, theirs in renamed.items()]),
        _listed("reshaped", reshaped),
        _listed("unexpected", [name for name in extra if name not in renamed.values()]),
    ]
    if any(faults):
        raise InvalidBundle(f"{where}: " + "; ".join(fault for fault in faults if fault))
    return {name: tensors[theirs] for name, theirs in taken.items()}


def _found(tensors: Tensors, expected: Iterable[str], spellings: Spellings, prefix: str) -> dict[str, str]:
    taken = {}
    for name in expected:
        theirs = next((prefix + spelling for spelling in spellings(name) if prefix + spelling in tensors), None)
        if theirs is not None:
            taken[name] = theirs
    return taken


def _renamed(missing: list[str], extra: list[str], tensors: Tensors, expected: Mapping[str, Shape]) -> dict[str, str]:
    """Missing names with the unexpected one of the same shape that looks most like each."""
    free, pairs = list(extra), {}
    for name in missing if len(missing) <= RENAMED else ():
        alike = [other for other in free if tensors[other].shape == expected[name]]
        closest = difflib.get_close_matches(name, alike, n=1, cutoff=0.5)
        if closest:
            pairs[name] = closest[0]
            free.remove(closest[0])
    return pairs


def _listed(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{kind}: {', '.join(names[:SHOWN])}{more}"
