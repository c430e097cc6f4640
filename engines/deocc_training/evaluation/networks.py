"""Feature networks: from weights that the user names, or a small stated one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32

from deocc_training.evaluation.example import InvalidDataset

__all__ = ["Network", "RandomNetwork", "load_network"]

SEED = 0
CHANNELS = (32, 64, 64)


class Network(Protocol):
    """Pictures in, one row of numbers out for each.

    Attributes:
        name: of the weights' file, or what it is.
        sha256: of the weights.
    """

    name: str
    sha256: str

    def __call__(self, *pictures: Float32[np.ndarray, "n 3 h w"]) -> Float32[np.ndarray, "n d"]: ...


class RandomNetwork:
    """Three convolutions with fixed random weights (numpy's PCG64, seed 0), ReLU between them, global mean: 64 numbers.

    What it measures can be repeated anywhere, but it is not the Inception network: its distances are not FID or KID and
    compare with nothing but themselves.
    """

    name = "three random convolutions"

    def __init__(self) -> None:
        import torch

        random = np.random.default_rng(SEED)
        shapes = [(CHANNELS[0], 3, 5, 5), (CHANNELS[1], CHANNELS[0], 3, 3), (CHANNELS[2], CHANNELS[1], 3, 3)]
        weights = [random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32) for shape in shapes]
        self.sha256 = hashlib.sha256(b"".join(weight.tobytes() for weight in weights)).hexdigest()
        self._weights = [torch.from_numpy(weight) for weight in weights]

    def __call__(self, *pictures: Float32[np.ndarray, "n 3 h w"]) -> Float32[np.ndarray, "n d"]:
        import torch
        from torch.nn import functional

        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(pictures[0])) / 127.5 - 1
            for weight in self._weights:
                x = functional.relu(functional.conv2d(x, weight, stride=2, padding=1))
            return np.asarray(x.mean((2, 3)).numpy())


def load_network(path: Path) -> Network:
    """The user's own: `.onnx` runs in OpenVINO, `.pt` is TorchScript.

    TorchScript is code: name files that you trust.

    Raises:
        OSError: it cannot be read.
        InvalidDataset: it is of another kind, or damaged.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        if path.suffix.lower() == ".onnx":
            return _OnnxNetwork(path, digest)
        if path.suffix.lower() in (".pt", ".ts", ".torchscript"):
            return _TorchNetwork(path, digest)
    except (RuntimeError, ValueError) as error:
        raise InvalidDataset(f"the network {path} cannot be loaded: {error}") from error
    raise InvalidDataset(f"{path}: networks are .onnx files, or .pt of TorchScript")


class _OnnxNetwork:
    def __init__(self, path: Path, digest: str) -> None:
        import openvino

        self.name, self.sha256 = path.name, digest
        hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino.compile_model(path, "CPU", hints)

    def __call__(self, *pictures: Float32[np.ndarray, "n 3 h w"]) -> Float32[np.ndarray, "n d"]:
        found = self._compiled([np.ascontiguousarray(picture) for picture in pictures])[0]
        return np.asarray(found, np.float32).reshape(len(pictures[0]), -1)


class _TorchNetwork:
    def __init__(self, path: Path, digest: str) -> None:
        import warnings

        import torch

        self.name, self.sha256 = path.name, digest
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, which published weights still use
            self._module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]

    def __call__(self, *pictures: Float32[np.ndarray, "n 3 h w"]) -> Float32[np.ndarray, "n d"]:
        import torch

        with torch.inference_mode():
            found = self._module(*(torch.from_numpy(np.ascontiguousarray(picture)) for picture in pictures))
        return np.asarray(found.float().numpy(), np.float32).reshape(len(pictures[0]), -1)
