"""`deocc engines compile`: every call of a bundle, built for one target and listed in the bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import onnx
import onnx_ir as ir
import torch

from deocc_engines.bundle import Bundle, sha256_of
from deocc_engines.compile.export import Graphs, dynamic_shape, graphs_folder
from deocc_engines.compile.folder import made_once
from deocc_engines.compile.key import Recipe, graph_hash
from deocc_engines.compile.listing import FOLDERS, Artefact, Dtype, Listing, Target
from deocc_engines.compile.plans import FLAGS, MODULES, Profile, build_plan, builder_here
from deocc_engines.compile.precision import KEPT, narrow
from deocc_engines.components import Call, calls_of, load_networks
from deocc_engines.errors import InvalidBundle, InvalidOption
from deocc_engines.extras import extra
from deocc_engines.folders import cache_folder
from deocc_engines.limits import Limits

__all__ = ["Built", "CompileOptions", "compile_bundle"]

# What each target computes in unless told otherwise, and what else it can be told.
DTYPES: dict[Target, tuple[Dtype, ...]] = {
    "openvino": ("f16", "f32"),  # of the weights; the processor says the arithmetic
    "onnx": ("f32", "f16"),
    "trt-rtx": ("f16", "bf16", "f32"),
    "trt": ("f16", "bf16", "f32"),
}
BATCHES = (1, 2, 4, 8)
TOKENS = (1, 2, Limits().max_points + 2)  # of a prompt to the segmenter: (min, opt, max)
EXACT: Dtype = "f32"


@dataclass(frozen=True)
class CompileOptions:
    """What to build.

    Attributes:
        sms: compute capabilities without a dot; only for TensorRT. Empty: this machine's card.
        dtype: None: float16; what a bundle calls exact stays float32 whatever is said here.
        batches: rows of the static profiles, one plan each; only for TensorRT.
        calls: names of `components.calls_of`; empty: all.
    """

    target: Target
    sms: tuple[str, ...] = ()
    dtype: Dtype | None = None
    batches: tuple[int, ...] = ()
    calls: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises InvalidOption."""
        if self.target not in get_args(Target):
            raise InvalidOption(f"{self.target!r} is none of {', '.join(get_args(Target))}", field="target")
        if self.dtype is not None and self.dtype not in DTYPES[self.target]:
            raise InvalidOption(f"{self.target} takes {' or '.join(DTYPES[self.target])}", field="dtype")
        if self.target not in MODULES and (self.sms or self.batches):
            field = "sm" if self.sms else "batch"
            raise InvalidOption(f"{self.target} runs on the CPU, row by row: leave {field} out", field=field)
        if any(rows < 1 for rows in self.batches):
            raise InvalidOption("a batch has at least one row", field="batch")


@dataclass(frozen=True)
class Built:
    """One artefact is ready: `index` of `count`."""

    artefact: Artefact
    index: int
    count: int
    seconds: float
    cached: bool

    @property
    def size(self) -> int:
        return sum(int(entry["size"]) for entry in self.artefact.files.values())


def compile_bundle(
    bundle: Bundle, options: CompileOptions, on_event: Callable[[Built], None] = lambda _: None
) -> Listing:
    """Builds, and writes into the bundle what was built.

    Args:
        on_event: called after each artefact.

    Raises:
        InvalidBundle: it is altered, or holds what the target does not support; the node is named.
        InvalidOption, Unavailable.
    """
    options.check()
    build = _Build(bundle, options)  # what is not installed is said before anything large is read
    bundle.check()
    calls = calls_of(load_networks(bundle))
    for name in options.calls:
        if name not in calls:
            raise InvalidOption(f"{name!r} is none of {', '.join(calls)}", field="call")
    wanted = {name: call for name, call in calls.items() if not options.calls or name in options.calls}
    orders = list(build.orders(wanted))
    artefacts = []
    for index, order in enumerate(orders):
        started = time.perf_counter()
        artefact, cached = build.make(order, wanted[order.call])
        artefacts.append(artefact)
        on_event(Built(artefact, index + 1, len(orders), time.perf_counter() - started, cached))
    listing = bundle.compiled.with_artefacts(artefacts)
    listing.write(bundle.path)
    _sweep(bundle.path, listing)
    return listing


class _Build:
    def __init__(self, bundle: Bundle, options: CompileOptions) -> None:
        self._bundle, self._options, self._graphs = bundle, options, Graphs(graphs_folder(bundle.engine_id))
        self._module = MODULES.get(options.target, "")
        self._builder = builder_here(self._module) if self._module else None
        if self._builder:
            self._version = self._builder.version
        elif options.target == "openvino":
            with extra("serve"):
                from deocc_engines.runtimes.openvino import version_here
            self._version = version_here().rpartition("-")[2]
        else:
            self._version = onnx.__version__.split("-")[0]

    def orders(self, calls: dict[str, Call]) -> Iterator[Artefact]:
        """Artefacts without key and files."""
        options = self._options
        runtime = f"{self._module or options.target}-{self._version}"
        for sm in self._sms():
            for name, call in calls.items():
                dtype = EXACT if call.exact and options.target != "openvino" else options.dtype
                for rows in (options.batches or BATCHES) if self._module else (1,):
                    batch = (rows, rows, rows)
                    yield Artefact(
                        name, options.target, runtime, dtype or DTYPES[options.target][0], sm, batch, key="", files={}
                    )

    def _sms(self) -> tuple[str, ...]:
        if self._builder is None:
            return ("",)
        anywhere = self._builder.sms
        here = "{}{}".format(*torch.cuda.get_device_capability()) if torch.cuda.is_available() else ""
        wanted = self._options.sms or ((here,) if here else ())
        if not wanted:
            raise InvalidOption("there is no card on this machine: say for which to compile", field="sm")
        for sm in wanted:
            if sm not in (anywhere or (here,)):
                able = ", ".join(anywhere) or f"{here or 'no card'}, which is what this machine has"
                raise InvalidOption(f"{self._module} does not compile for sm{sm}; it does for {able}", field="sm")
        return wanted

    def make(self, order: Artefact, call: Call) -> tuple[Artefact, bool]:
        """The artefact in the bundle, and whether it was in the cache."""
        graph = self._graphs.of(order.call, call)
        profile = _profile(call, order.batch)
        names = tuple(node.name for node in onnx.load(graph, load_external_data=False).graph.input)
        recipe = Recipe(
            graph=graph_hash(graph),
            profile=dict(zip(names, profile, strict=True)),
            dtype=order.dtype,
            flags=self._flags(),
            runtime=order.runtime.rpartition("-")[0],
            version=self._version,
            sms=(order.sm,),
        )
        artefact = dataclasses.replace(order, key=recipe.key)
        kept = cache_folder() / "artefacts" / recipe.key
        with made_once(kept) as own:
            if own is not None:
                self._fill(own, artefact, call, graph, profile, recipe)
        return _placed(self._bundle.path, kept, artefact), own is None

    def _flags(self) -> tuple[str, ...]:
        if self._options.target == "openvino":
            return (f"torch-{torch.__version__}",)
        kept = tuple(f"kept:{name}" for name in sorted(KEPT))
        return (*FLAGS, *kept) if self._module else kept

    def _fill(self, own: Path, artefact: Artefact, call: Call, graph: Path, profile: Profile, recipe: Recipe) -> None:
        if artefact.target == "openvino":
            import openvino as ov  # machines with a GPU need not have it

            from deocc_engines.runtimes.openvino import convert

            model = convert(call)
            ov.save_model(model, own / "model.xml", compress_to_fp16=artefact.dtype == "f16")
            return
        if artefact.target == "onnx":
            _narrowed(graph, artefact.dtype, own / "model.onnx")
            return
        assert artefact.plan is not None
        plan = own / Path(artefact.plan).name
        with tempfile.TemporaryDirectory(dir=own.parent) as scratch:
            source = Path(scratch) / artefact.call / "model.onnx"
            source.parent.mkdir()
            _narrowed(graph, artefact.dtype, source)
            build_plan(self._module, source, plan, artefact.sm, profile)
            ends = onnx.load(source, load_external_data=False).graph
        said = {
            **{name: getattr(artefact, name) for name in ("call", "target", "runtime", "dtype", "sm", "batch", "key")},
            "sha256": sha256_of(plan),
            "inputs": [node.name for node in ends.input],
            "outputs": [node.name for node in ends.output],
            "recipe": dataclasses.asdict(recipe),
        }
        plan.with_suffix(".json").write_text(json.dumps(said, indent=2) + "\n")


def _narrowed(graph: Path, dtype: Dtype, file: Path) -> None:
    model = ir.load(graph)
    try:
        narrow(model, dtype)
    except InvalidBundle as error:
        raise InvalidBundle(f"{graph.parent.name}: {error.message}") from error
    ir.save(model, file, external_data=f"{file.name}.data")


def _profile(call: Call, batch: tuple[int, int, int]) -> Profile:
    """(min, opt, max) shapes by input; only rows and tokens vary."""
    return [
        [dynamic_shape(call, index, rows, tokens) for rows, tokens in zip(batch, TOKENS, strict=True)]
        for index in range(len(call.example))
    ]


def _placed(bundle: Path, kept: Path, artefact: Artefact) -> Artefact:
    """Copies what is kept into the bundle, whole files at once."""
    folder = bundle / artefact.folder
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for source in sorted(kept.iterdir()):
        own, target = folder / f".{source.name}.{os.getpid()}", folder / source.name
        shutil.copyfile(source, own)
        own.replace(target)
        name = target.relative_to(bundle).as_posix()
        files[name] = {"sha256": sha256_of(target), "size": target.stat().st_size}
    return dataclasses.replace(artefact, files=files)


def _sweep(bundle: Path, listing: Listing) -> None:
    """Removes compiled files that are listed no more, such as those of an older runtime's same place."""
    for folder in FOLDERS:
        for file in (bundle / folder).rglob("*"):
            if file.is_file() and file.relative_to(bundle).as_posix() not in listing.files:
                file.unlink()
