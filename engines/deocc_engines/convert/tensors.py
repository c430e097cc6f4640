"""Tensors in files: names and shapes at once, values when asked, so that no component is in memory twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from deocc_engines.errors import InvalidBundle

__all__ = ["STEMS", "StoredTensor", "Tensors", "open_safetensors", "read_json", "weight_files"]

# What diffusers and transformers call the weights of a component.
STEMS = ("diffusion_pytorch_model", "model")
HEADER_SIZE = 8  # bytes of the length that a safetensors file starts with


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        read: gives its values.
    """

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


Tensors = Mapping[str, StoredTensor]


def weight_files(folder: Path, *, half: bool) -> tuple[Path, ...]:
    """The safetensors files of one component in the layout of diffusers or transformers.

    Whole or in shards, of the wanted variant if it is there, else of the other.

    Args:
        half: prefer the variant "fp16".

    Raises:
        InvalidBundle: there are none, or a shard is missing.
    """
    for variant in ("fp16", "") if half else ("", "fp16"):
        for stem in STEMS:
            whole = folder / (f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors")
            if whole.is_file():
                return (whole,)
            index = folder / (f"{stem}.safetensors.index" + (f".{variant}.json" if variant else ".json"))
            if index.is_file():
                return (index, *_shards(index))
    raise InvalidBundle(f"{folder.name} holds no safetensors file named {' or '.join(STEMS)}")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidBundle(f"{index.name} lists no shards") from error
    shards = [index.parent / Path(name).name for name in names]
    for shard in shards:
        if not shard.is_file():
            raise InvalidBundle(f"{shard.name} is missing; {index.name} lists it")
    return shards


def open_safetensors(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """All tensors of the files, which may be shards; index files are passed over.

    Raises:
        InvalidBundle: a file is truncated (naming the tensor within which it ends) or none of safetensors.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        if file.suffix != ".safetensors":
            continue
        shapes = _shapes(file)
        try:
            handle = safe_open(file, framework="pt")
        except SafetensorError as error:
            raise InvalidBundle(f"{file.name} is damaged: {error}") from error
        for name, shape in shapes.items():
            tensors[name] = StoredTensor(shape, partial(handle.get_tensor, name))
    return tensors


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """From the header; safetensors itself does not say which tensor a short file ends in."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(HEADER_SIZE), "little")
        if HEADER_SIZE + length > size:
            raise InvalidBundle(f"{file.name} is no safetensors file, or truncated within its header")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            ends = {name: HEADER_SIZE + length + entry["data_offsets"][1] for name, entry in header.items()}
            shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise InvalidBundle(f"{file.name} is no safetensors file") from error
    short = [name for name in sorted(ends, key=ends.__getitem__) if ends[name] > size]
    if short:
        raise InvalidBundle(f"{file.name} is truncated: it ends within {short[0]}, the first of {len(short)} cut short")
    return shapes


def read_json(file: Path) -> dict[str, Any]:
    """Raises InvalidBundle where there is no JSON object."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise InvalidBundle(f"{file.parent.name}/{file.name} is missing") from error
    except ValueError as error:
        raise InvalidBundle(f"{file.parent.name}/{file.name} is damaged") from error
    if not isinstance(content, dict):
        raise InvalidBundle(f"{file.parent.name}/{file.name} is not a JSON object")
    return content
