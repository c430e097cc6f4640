"""A whole bundle from published files: fetched through the hub (`pull`), or on this machine already (`convert`)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deocc_engines.bundle import Bundle, seal
from deocc_engines.convert import hub, published
from deocc_engines.convert.anything import find_completer
from deocc_engines.convert.component import DTYPES
from deocc_engines.convert.given import Given
from deocc_engines.convert.parts import BorrowedPart, Part, PublishedCompleter, PublishedSegmenter
from deocc_engines.convert.provenance import Source, agree, card, licence_of
from deocc_engines.convert.published import PublishedSam, Repository
from deocc_engines.convert.recipe import SCHEDULERS, ConvertOptions, Recipe, recipe_of
from deocc_engines.convert.sam import find_segmenter
from deocc_engines.convert.tensors import weight_files
from deocc_engines.errors import InvalidOption

__all__ = ["convert", "convert_files", "pull"]


@dataclass(frozen=True)
class Files:
    """The published files on this machine; empty where a part is a bundle's."""

    sources: Mapping[Repository, Source]
    base: Path | None
    checkpoints: tuple[Path, ...]
    sam: tuple[Path, ...]


def pull(
    name: str,
    options: ConvertOptions,
    *,
    revisions: Sequence[str] = (),
    accept: Callable[[str], bool],
    say: Callable[[str], None],
) -> Bundle:
    """Fetches published files through the hub and makes a bundle of them.

    Args:
        revisions: "REVISION" of what is named, or "HUB_ID=REVISION"; a branch, tag or commit each.
        accept: is shown the licences and says whether the user accepts them.
        say: told what is being done.

    Raises:
        NotFound: no engine of this name is published; no such repository, revision or bundle.
        InvalidOption: an option does not fit, or the licences were not accepted.
        Unavailable: the hub cannot be reached.
        InvalidBundle: what is published there is not what it should be.
    """
    options.check()
    recipe = recipe_of(name, options)
    wanted, out = _revisions(revisions, recipe.repositories), recipe.out(options)
    agree(recipe.repositories, accept)
    folders = {}
    for repository in recipe.repositories:
        say(f"fetching {repository.hub_id}")
        folders[repository] = _fetch(repository, wanted.get(repository.hub_id), options)
    sam = isinstance(recipe.segmenter, PublishedSam)
    files = Files(
        {repository: Source(repository, folder.name, folder) for repository, folder in folders.items()},
        folders.get(published.BASE),
        tuple(sorted(folders[published.CHECKPOINTS].rglob("*.ckpt"))) if published.CHECKPOINTS in folders else (),
        weight_files(folders[recipe.repositories[-1]], half=False) if sam else (),
    )
    return _assemble(recipe, files, out, options, say)


def convert(
    name: str,
    paths: Sequence[Path],
    options: ConvertOptions,
    *,
    accept: Callable[[str], bool],
    say: Callable[[str], None],
) -> Bundle:
    """Makes a bundle of local files, without a hub.

    Args:
        paths: in any order: the base's folder, Lightning checkpoints, SAM's weights, or folders with these.

    Raises:
        As `pull`, but Unavailable.
    """
    return convert_files(recipe_of(name, options), paths, options, accept=accept, say=say)


def convert_files(
    recipe: Recipe,
    paths: Sequence[Path],
    options: ConvertOptions,
    *,
    accept: Callable[[str], bool],
    say: Callable[[str], None],
) -> Bundle:
    """The same for a recipe, which may be of other sizes than the published ones."""
    options.check()
    given = Given.of(paths)
    if recipe.completer is None and given.base is None:
        raise InvalidOption("the base's folder, in diffusers' layout, is wanted, too", field="from")
    if recipe.completer is None and not given.checkpoints:
        raise InvalidOption("DeoccAnything's checkpoints are wanted, too", field="from")
    if isinstance(recipe.segmenter, PublishedSam) and not given.sam:
        raise InvalidOption("SAM's weights are wanted, too, or a bundle as --segmenter, e.g. deocc-mini", field="from")
    out = recipe.out(options)
    agree(recipe.repositories, accept)
    sources = {
        repository: Source(repository, None, given.base if repository == published.BASE else None)
        for repository in recipe.repositories
    }
    return _assemble(recipe, Files(sources, given.base, given.checkpoints, given.sam), out, options, say)


def _revisions(texts: Sequence[str], repositories: Sequence[Repository]) -> dict[str, str]:
    known = [repository.hub_id for repository in repositories]
    wanted = {}
    for text in texts:
        named, equals, revision = text.rpartition("=")
        hub_id = named if equals else known[0]
        if hub_id not in known:
            raise InvalidOption(f"{hub_id} is not fetched; {', '.join(known)} are", field="revision")
        wanted[hub_id] = revision
    return wanted


def _fetch(repository: Repository, revision: str | None, options: ConvertOptions) -> Path:
    if repository != published.BASE:
        return hub.fetch(repository.hub_id, revision, repository.files)
    half = options.dtype == "float16"
    return hub.fetch_weights(repository.hub_id, revision, repository.files, ("text_encoder", "vae"), half=half)


def _assemble(recipe: Recipe, files: Files, out: Path, options: ConvertOptions, say: Callable[[str], None]) -> Bundle:
    """Matches all tensors before any is read, writes beside `out`, and moves what is whole there."""
    dtype = DTYPES[options.dtype]
    completer, segmenter = _completer(recipe, files, options), _segmenter(recipe, files)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        entries = [*completer.write(folder, dtype, say), *segmenter.write(folder, dtype, say)]
        say("sealing")
        (folder / "README.md").write_text(card(recipe.name, entries))
        manifest = {"name": recipe.name, **licence_of(entries), **completer.settings, "sources": entries}
        seal(folder, manifest).check()
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    return Bundle.open(out)


def _completer(recipe: Recipe, files: Files, options: ConvertOptions) -> Part:
    if recipe.completer is not None:
        return BorrowedPart("completer", recipe.completer)
    assert files.base is not None
    found = find_completer(
        files.base, files.checkpoints, SCHEDULERS[options.scheduler], half=options.dtype == "float16"
    )
    return PublishedCompleter(found, files.sources[published.CHECKPOINTS], files.sources[published.BASE])


def _segmenter(recipe: Recipe, files: Files) -> Part:
    if isinstance(recipe.segmenter, Bundle):
        return BorrowedPart("segmenter", recipe.segmenter)
    component = find_segmenter(files.sam, recipe.segmenter.config)
    return PublishedSegmenter(component, files.sources[recipe.segmenter.repository])
