"""Bundles: one directory with a manifest, configurations and safetensors. Checked before anything of it is used.

::

    manifest.json                    schema, name, licence, sizes, schedule, defaults, sha256 and size of every file
    tokenizer/tokenizer.json
    <component>/config.json          sizes of the network
    <component>/model.safetensors    its weights
    README.md, *.jpg                 the model card
    compiled.json                    what was compiled of it, in onnx/, openvino/ and trt/ (`compile.listing`)

Components: text_encoder, vae, unet, mask_decoder, sam; refiner and mask_refiner where the engine has them. Nothing
executable is ever read from a bundle, but for the plans of TensorRT that its listing names, checked before they are
read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deocc_engines.compile.listing import FOLDERS, LISTING, Listing
from deocc_engines.completion import Preset
from deocc_engines.errors import InvalidBundle, NotFound
from deocc_engines.folders import engines_folder

__all__ = [
    "COMPONENTS",
    "DOCUMENTS",
    "OPTIONAL",
    "SCHEMA",
    "Bundle",
    "EngineInfo",
    "available",
    "find",
    "seal",
    "sha256_of",
    "verify",
]

SCHEMA = 1
COMPONENTS = ("text_encoder", "vae", "unet", "mask_decoder", "sam")
OPTIONAL = ("refiner", "mask_refiner")
EMBEDDED = Path(__file__).parent / "bundles"
DEFAULT = "deocc-mini"
READ = 1 << 20  # bytes hashed at once
ALLOWED_SUFFIXES = {".json", ".safetensors"}
DOCUMENTS = {".md", ".jpg"}  # the model card: no part of the engine, so neither listed nor hashed


@dataclass(frozen=True)
class EngineInfo:
    """What is said of an engine to its users.

    Attributes:
        engine_id: name and content hash of the bundle.
        runtimes: by call, e.g. "denoise"; empty until the engine is loaded.
        window: pixels along each side of the completer's input.
        presets: by name, the default one first.
        path: of the bundle on this machine.
    """

    engine_id: str
    name: str
    licence: str
    commercial_use: bool
    runtimes: dict[str, str]
    window: int
    presets: dict[str, Preset]
    path: str


@dataclass(frozen=True)
class Bundle:
    """A directory whose manifest was read; `check` compares the files with it."""

    path: Path
    manifest: dict[str, Any]
    engine_id: str

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Reads the manifest.

        Raises:
            NotFound: there is none.
            InvalidBundle: it is not one, or of a schema that this version does not know.
        """
        file = path / "manifest.json"
        if not file.is_file():
            raise NotFound(f"no bundle at {path.name!r}: it has no manifest.json", field="engine_id")
        content = file.read_bytes()
        try:
            manifest = json.loads(content)
            schema, name = manifest["schema"], manifest["name"]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidBundle("the manifest is damaged") from error
        if schema != SCHEMA:
            raise InvalidBundle(f"the manifest has schema {schema}; this version reads schema {SCHEMA}")
        return cls(path, manifest, f"{name}@{hashlib.sha256(content).hexdigest()[:12]}")

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @cached_property
    def _files(self) -> dict[str, dict[str, Any]]:
        files: dict[str, dict[str, Any]] = self.manifest["files"]
        return files

    @cached_property
    def compiled(self) -> Listing:
        """What was compiled of it, as it was when first asked for."""
        return Listing.read(self.path, self.engine_id)

    def check(self) -> None:
        """Raises InvalidBundle unless every file is there, unaltered, and listed."""
        self.compiled.check()
        listed = {**self.compiled.files, **self._files}
        for name, entry in listed.items():
            file = self._inside(name)
            if not file.is_file():
                raise InvalidBundle(f"{name} is missing")
            if file.stat().st_size != entry["size"] or sha256_of(file) != entry["sha256"]:
                raise InvalidBundle(f"{name} was altered: its size or SHA-256 is not the manifest's")
        for file in self._present():
            name = file.relative_to(self.path).as_posix()
            if name not in listed:
                raise InvalidBundle(f"{name} is not in the manifest")
        self.compiled.check_provenance(self.path)
        for component in (*COMPONENTS, *filter(self.holds, OPTIONAL)):
            for part in ("config.json", "model.safetensors"):
                if f"{component}/{part}" not in self._files:
                    raise InvalidBundle(f"the manifest lists no {component}/{part}")

    def presets(self) -> dict[str, Preset]:
        """By name, the default one first.

        Raises:
            InvalidBundle: there is none, or one lacks a value.
        """
        try:
            presets = {name: Preset(**values) for name, values in self.manifest["presets"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidBundle(f"the manifest's presets are damaged: {error}") from error
        if not presets:
            raise InvalidBundle("the manifest has no preset")
        return presets

    def holds(self, component: str) -> bool:
        """Whether it has files of a component."""
        return any(name.startswith(f"{component}/") for name in self._files)

    def config(self, component: str) -> dict[str, Any]:
        """The sizes of one network."""
        config: dict[str, Any] = json.loads((self.path / component / "config.json").read_text())
        return config

    def weights(self, component: str) -> Path:
        """The safetensors file of one network."""
        return self.path / component / "model.safetensors"

    def info(self, runtimes: dict[str, str] | None = None) -> EngineInfo:
        """What is said of this engine to its users."""
        try:
            return EngineInfo(
                engine_id=self.engine_id,
                name=self.name,
                licence=self.manifest["licence"],
                commercial_use=self.manifest["commercial_use"],
                runtimes=runtimes or {},
                window=self.manifest["window"],
                presets=self.presets(),
                path=str(self.path),
            )
        except (KeyError, TypeError) as error:
            raise InvalidBundle(f"the manifest lacks {error}") from error

    def _inside(self, name: str) -> Path:
        file = self.path / name
        if not file.resolve().is_relative_to(self.path.resolve()) or file.is_symlink() or ".." in Path(name).parts:
            raise InvalidBundle(f"{name!r} leads out of the bundle")
        allowed = FOLDERS[name.partition("/")[0]] if name in self.compiled.files else ALLOWED_SUFFIXES
        if file.suffix not in allowed:
            raise InvalidBundle(f"{name!r} is of a kind that bundles do not hold")
        return file

    def _present(self) -> Iterator[Path]:
        own = (self.path / "manifest.json", self.path / LISTING)
        files = (f for f in sorted(self.path.rglob("*")) if f.is_file() and f not in own)
        return (f for f in files if f.suffix not in DOCUMENTS)


def sha256_of(file: Path) -> str:
    """Hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(READ):
            digest.update(block)
    return digest.hexdigest()


def seal(folder: Path, manifest: dict[str, Any]) -> Bundle:
    """Writes the manifest over the files that lie in the folder now, but for what was compiled.

    Args:
        manifest: everything but `schema` and `files`.
    """
    files = {
        file.relative_to(folder).as_posix(): {"sha256": sha256_of(file), "size": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and file.suffix not in DOCUMENTS
        and file.relative_to(folder).parts[0] not in ("manifest.json", LISTING, *FOLDERS)
    }
    content = {"schema": SCHEMA, **manifest, "files": files}
    (folder / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")
    return Bundle.open(folder)


def available() -> list[EngineInfo]:
    """The engines inside the package, and those that were pulled or converted."""
    manifests = [*sorted(EMBEDDED.glob("*/manifest.json")), *sorted(engines_folder().glob("[!.]*/manifest.json"))]
    return [Bundle.open(manifest.parent).info() for manifest in manifests]


def find(name_or_path: str | None = None) -> Bundle:
    """A bundle by name (inside the package, or pulled), by path, or the default one.

    Raises:
        NotFound, InvalidBundle.
    """
    if name_or_path is None:
        return Bundle.open(EMBEDDED / DEFAULT)
    if "/" not in name_or_path:
        for place in (EMBEDDED, engines_folder()):
            if (place / name_or_path / "manifest.json").is_file():
                return Bundle.open(place / name_or_path)
    return Bundle.open(Path(name_or_path).expanduser())


def verify(name_or_path: str | None = None) -> EngineInfo:
    """Checks every hash of a bundle.

    Raises:
        NotFound, InvalidBundle.
    """
    bundle = find(name_or_path)
    bundle.check()
    return bundle.info()
