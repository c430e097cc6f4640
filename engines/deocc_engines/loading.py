"""From a bundle's name to a working engine."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import openvino
import torch

from deocc_engines.bundle import Bundle, EngineInfo, find
from deocc_engines.completer import Completer, CompleterSettings
from deocc_engines.components import Networks, calls_of, load_networks
from deocc_engines.deoccluder import Deoccluder
from deocc_engines.embeddings import EmbeddingCache
from deocc_engines.errors import InvalidBundle
from deocc_engines.limits import Limits
from deocc_engines.runtimes import Runtime, reference
from deocc_engines.runtimes.openvino import OpenvinoCompiler
from deocc_engines.sampler import Schedule
from deocc_engines.segmenter import Segmenter
from deocc_engines.text import Tokenizer

__all__ = ["RuntimeName", "cache_folder", "deoccluder_of", "load_deoccluder"]

RuntimeName = Literal["openvino", "torch", "onnx"]

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """For what can be made again: DEOCC_CACHE, or deocc in the user's cache directory."""
    base = os.environ.get("DEOCC_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "deocc"


def load_deoccluder(
    name_or_path: str | None = None,
    *,
    runtime: RuntimeName = "openvino",
    streams: int | None = None,
    limits: Limits = Limits(),
) -> tuple[Deoccluder, EngineInfo]:
    """Checks a bundle, builds its networks, compiles them.

    Args:
        streams: requests that may run at once; None: as many as there are cores.

    Raises:
        NotFound, InvalidBundle.
    """
    bundle = find(name_or_path)
    bundle.check()
    networks = load_networks(bundle)
    built = _compiled(bundle, networks, runtime, streams or os.cpu_count() or 1)
    log.info("%s runs on %s", bundle.engine_id, built.name)
    calls = calls_of(networks)
    return deoccluder_of(bundle, networks, built, limits), bundle.info(dict.fromkeys(calls, built.name))


def deoccluder_of(bundle: Bundle, networks: Networks, runtime: Runtime, limits: Limits = Limits()) -> Deoccluder:
    """Wires a bundle's settings to a runtime."""
    try:
        manifest = bundle.manifest
        schedule = manifest["schedule"]
        settings = CompleterSettings(
            window=manifest["window"],
            factor=networks.vae.config.factor,
            schedule=Schedule(schedule["name"], schedule["config"]),
            presets=bundle.presets(),
            global_margin=manifest["global_margin"],
            mask_resize=manifest["mask_resize"],
            whole_below=manifest["whole_below"],
        )
    except (KeyError, TypeError) as error:
        raise InvalidBundle(f"the manifest lacks {error}") from error
    tokenizer = Tokenizer.open(bundle.path / "tokenizer" / "tokenizer.json", networks.text_config.length)
    sam = networks.sam
    return Deoccluder(
        segmenter=Segmenter(runtime, sam.config.image_size, 4 * sam.grid),
        completer=Completer(runtime, tokenizer, settings),
        embeddings=EmbeddingCache(),
        limits=limits,
    )


def _compiled(bundle: Bundle, networks: Networks, runtime: RuntimeName, streams: int) -> Runtime:
    calls = calls_of(networks)
    if runtime == "torch":
        return Runtime.compiled(reference.NAME, calls, reference.compile_call)
    key = f"{bundle.engine_id}-torch{torch.__version__}"
    if runtime == "onnx":
        from deocc_engines.runtimes.onnx import OnnxCompiler  # needs the extra "export"

        onnx = OnnxCompiler(cache_folder() / "onnx" / key)
        return Runtime.compiled(onnx.name, calls, onnx)
    compiler = OpenvinoCompiler(cache_folder() / "openvino" / f"{key}-ov{openvino.__version__.split('-')[0]}", streams)
    return Runtime.compiled(compiler.name, calls, compiler)
