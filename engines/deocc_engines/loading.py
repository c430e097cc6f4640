"""From a bundle's name to a working engine."""

from __future__ import annotations

import logging
import os

from deocc_engines.bundle import Bundle, EngineInfo, find
from deocc_engines.completer import Completer, CompleterSettings
from deocc_engines.components import Networks, calls_of, load_networks
from deocc_engines.deoccluder import Deoccluder
from deocc_engines.embeddings import EmbeddingCache
from deocc_engines.errors import InvalidBundle
from deocc_engines.limits import Limits
from deocc_engines.runtimes import Runtime
from deocc_engines.runtimes.selection import RuntimeName, runtime_of
from deocc_engines.sampler import Schedule
from deocc_engines.segmenter import Segmenter
from deocc_engines.text import Tokenizer

__all__ = ["RuntimeName", "deoccluder_of", "load_deoccluder"]

log = logging.getLogger(__name__)


def load_deoccluder(
    name_or_path: str | None = None,
    *,
    runtime: RuntimeName = "auto",
    streams: int | None = None,
    limits: Limits = Limits(),
) -> tuple[Deoccluder, EngineInfo]:
    """Checks a bundle, builds its networks, compiles them.

    Args:
        streams: requests that may run at once; None: as many as there are cores.

    Raises:
        NotFound, InvalidBundle.
        Unavailable: the runtime that was asked for is not to be had on this machine.
    """
    bundle = find(name_or_path)
    bundle.check()
    networks = load_networks(bundle)
    calls = calls_of(networks)
    streams = streams or os.cpu_count() or 1
    built = runtime_of(bundle, calls, runtime, streams)
    log.info("%s runs on %s", bundle.engine_id, built.name)
    return deoccluder_of(bundle, networks, built, limits, streams), bundle.info(dict.fromkeys(calls, built.name))


def deoccluder_of(
    bundle: Bundle, networks: Networks, runtime: Runtime, limits: Limits = Limits(), streams: int = 1
) -> Deoccluder:
    """Wires a bundle's settings to a runtime.

    Args:
        streams: as of `load_deoccluder`; a runtime that takes batches has one stream of them.
    """
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
            whole_above=manifest.get("whole_above", CompleterSettings.whole_above),
            mirror_odd_seeds=manifest.get("mirror_odd_seeds", CompleterSettings.mirror_odd_seeds),
        )
    except (KeyError, TypeError) as error:
        raise InvalidBundle(f"the manifest lacks {error}") from error
    tokenizer = Tokenizer.open(bundle.path / "tokenizer" / "tokenizer.json", networks.text_config.length)
    sam, close = networks.sam, networks.mask_refiner
    return Deoccluder(
        segmenter=Segmenter(
            runtime,
            sam.config.image_size,
            4 * sam.grid,
            close.config.window if close else None,
            manifest.get("closer_look"),
        ),
        completer=Completer(
            runtime,
            tokenizer,
            settings,
            sizes=runtime.sizes,
            workers=streams if runtime.by_row else 1,
        ),
        embeddings=EmbeddingCache(),
        limits=limits,
    )
