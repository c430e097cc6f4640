"""Pickled checkpoints, read as weights only: `.ckpt` of Lightning, `.pth` of segment-anything.

Lightning writes objects of the training beside the weights: configurations, counters, states of callbacks. They are
read as empty stand-ins. Any other global in the pickle is refused, and nothing that a file names is ever imported
or called.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from deocc_engines.convert.tensors import StoredTensor
from deocc_engines.errors import InvalidBundle

__all__ = ["open_checkpoint"]

ZIP = b"PK\x03\x04"
# What Lightning's trainings leave in a checkpoint: by package, and by full name.
BYSTANDERS = ("lightning.", "lightning_fabric.", "lightning_utilities.", "numpy.", "omegaconf.", "pytorch_lightning.")
NAMED_BYSTANDERS = frozenset(
    {"argparse.Namespace", "collections.defaultdict", "pathlib.Path", "pathlib.PosixPath", "typing.Any"}
    | {f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "set", "str", "tuple")}
)
LOCAL_HEADER, NAME_LENGTHS = 30, 26  # bytes of a zip record's header, and where in it the lengths stand


def open_checkpoint(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a state dict, or of the `state_dict` inside a Lightning checkpoint; mapped, not read.

    Raises:
        InvalidBundle: the file is truncated or no checkpoint, holds code, or a tensor in it is cut short.
    """
    with file.open("rb") as stream:
        zipped = stream.read(len(ZIP)) == ZIP
    stand_ins = _stand_ins(file) if zipped else []
    try:
        with safe_globals(stand_ins):
            if zipped:
                _check_records(file)
            content = torch.load(file, weights_only=True, mmap=zipped, map_location="cpu")
    except UnpicklingError as error:
        raise InvalidBundle(f"{file.name} is refused: it holds more than weights, or is truncated") from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, struct.error, BadZipFile) as error:
        raise InvalidBundle(f"{file.name} is truncated, or no checkpoint") from error
    tensors = _tensors(content)
    if not tensors:
        raise InvalidBundle(f"{file.name} holds no tensors by name")
    return {name: StoredTensor(tuple(tensor.shape), _reader(tensor)) for name, tensor in tensors.items()}


def _reader(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor.detach()


def _tensors(content: Any) -> dict[str, Tensor]:
    inner = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not isinstance(inner, dict):
        return {}
    return {name: value for name, value in inner.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _stand_ins(file: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    try:
        found = get_unsafe_globals_in_checkpoint(str(file))
    except (UnpicklingError, RuntimeError, ValueError, IndexError, struct.error) as error:
        raise InvalidBundle(f"{file.name} is truncated, or no checkpoint") from error
    refused = sorted(name for name in found if not (name in NAMED_BYSTANDERS or name.startswith(BYSTANDERS)))
    if refused:
        raise InvalidBundle(f"{file.name} is refused: its pickle names {', '.join(refused)}, which are not weights")
    # One class each: torch asks which name a class was allowed under.
    return [(type("StandIn", (_StandIn,), {}), name) for name in found]


class _StandIn:
    """Becomes an empty dict whatever it is made from: the one type that takes items and state alike."""

    def __new__(cls, *args: object, **named: object) -> Any:
        return OrderedDict()


def _check_records(file: Path) -> None:
    """Each tensor's bytes are all there: torch maps what the pickle promises without asking how much there is."""
    found = {}
    with ZipFile(file) as archive, file.open("rb") as stream:
        for record in archive.infolist():
            stream.seek(record.header_offset + NAME_LENGTHS)
            name, extra = struct.unpack("<HH", stream.read(4))
            found[record.header_offset + LOCAL_HEADER + name + extra] = record.file_size
    promised = torch.load(file, weights_only=True, map_location="meta")  # names, shapes and offsets alone
    for name, tensor in _tensors(promised).items():
        storage = tensor.untyped_storage()
        there = found.get(storage._checkpoint_offset, 0)
        if there < storage.nbytes():
            raise InvalidBundle(f"{file.name}: {name} is truncated: {there} bytes of {storage.nbytes()}")
