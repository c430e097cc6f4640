"""Where the cut-outs and backgrounds come from: openly licensed pictures inside npm and Debian packages.

- fluent-emoji-3d, MIT: renders of things, animals and people; captions from Unicode names.
- tuxpaint-stamps-default, GPL-2: mostly photographs; captions from their description files. Trained on, not shipped.
- openclipart-png, public domain: drawings; captions from the pictures' own titles.
- sweethome3d-furniture, CC0 and CC-BY-3.0: textured 3D models, rendered from several sides (`models`); captions from
  its catalogues. Trained on, not shipped, and never tested on: the test set stays as it was, so that bundles compare.
- plasma-workspace-wallpapers, mate-backgrounds, gnome-backgrounds: backgrounds. Trained on, not shipped.

Packages are unpacked, never installed. `prepare` writes `index.json` beside the cleaned pictures.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deocc_training import models
from deocc_training.captions import emoji_caption, emoji_category, emoji_identity, openclipart_caption, stamp_caption
from deocc_training.cutout import Cutout, Kind, RejectedError, clean, decode, flatness
from deocc_training.splits import Thumbnail, merged_identities, split_of, thumbnail

__all__ = ["DEBIAN_PACKAGES", "NPM_PACKAGE", "default_cache", "fetch", "load_index", "prepare"]

log = logging.getLogger(__name__)

NPM_PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
_FURNITURE = "sweethome3d-furniture"
_WALLPAPERS = ("plasma-workspace-wallpapers", "mate-backgrounds", "gnome-backgrounds")
DEBIAN_PACKAGES = ("tuxpaint-stamps-default", "openclipart-png", _FURNITURE, *_WALLPAPERS)
_WALLPAPER_LONG_SIDE = 1280  # px

# Folders of openclipart with things in them; the rest is arrows, stars, flags, icons and playing cards.
_CLIPART = re.compile(
    r"^(animals|food|plants|tools|office|electronics|transportation|buildings|containers|recreation|people|education"
    r"|science|decorations|computer/(hardware|connectors|network|games)|unsorted)(/|$)"
)
_NOT_CLIPART = re.compile(
    r"aiga|roadsigns|road signs?\b|cards|stickmen|duplicates|silhouette|contour|outline|pantyhose|hotel_icon|dice"
)
_NOT_STAMPS = re.compile(r"^(symbols/(?!chess|money/.*coins|alphabets/asl)|town/flags|town/roadsigns|naturalforces)")
_CLIPART_LIMIT = 2500
_STAMP_DRAWINGS = re.compile(r"cartoon|^symbols/chess|^seasonal/easter|Santa|stocking|jackolantern|^clothes")
_PHOTOGRAPH_FLATNESS = 0.6  # of the stamps that no folder calls drawings, photographs lie below even with few colours


@dataclass(frozen=True)
class _Candidate:
    source: str
    identity: str
    kind: Kind | None  # None: decided by the pixels
    caption: str
    path: Path  # original picture


def default_cache() -> Path:
    """Return ~/.cache/deocc."""
    return Path.home() / ".cache" / "deocc"


def fetch(cache_dir: Path) -> Path:
    """Download and unpack the packages that are absent; return the folder with one folder per package."""
    downloads, unpacked = cache_dir / "src", cache_dir / "unpacked"
    downloads.mkdir(parents=True, exist_ok=True)
    if not any(downloads.glob("lobehub-fluent-emoji-3d-*.tgz")):
        _run(["npm", "pack", "--silent", NPM_PACKAGE], downloads)
    archive = next(iter(sorted(downloads.glob("lobehub-fluent-emoji-3d-*.tgz"))))
    if not (unpacked / "fluent-emoji-3d" / "package").is_dir():
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked / "fluent-emoji-3d", filter="data")
    for name in DEBIAN_PACKAGES:
        if not any(downloads.glob(f"{name}_*.deb")):
            _run(["apt-get", "download", "-q", name], downloads)
        package = next(iter(sorted(downloads.glob(f"{name}_*.deb"))))
        if not (unpacked / name / "usr").is_dir():
            (unpacked / name).mkdir(parents=True, exist_ok=True)
            _run(["dpkg-deb", "-x", str(package), str(unpacked / name)], downloads)
    return unpacked


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def _emoji(root: Path) -> Iterator[_Candidate]:
    for path in sorted(root.glob("package/assets/*.webp")):
        code_points = tuple(int(part, 16) for part in path.stem.split("-"))
        category = emoji_category(code_points)
        if category is not None:
            identity = f"fluent/{category}/{emoji_identity(code_points)}"
            yield _Candidate("fluent-emoji-3d", identity, "render", emoji_caption(code_points), path)


def _stamps(root: Path) -> Iterator[_Candidate]:
    stamps = root / "usr/share/tuxpaint/stamps"
    for path in sorted(stamps.rglob("*.png")):
        place = path.relative_to(stamps).with_suffix("").as_posix()
        if not _NOT_STAMPS.match(place) and not re.search(r"_(mirror|flip)", path.stem):
            kind: Kind | None = "drawing" if _STAMP_DRAWINGS.search(place) else None
            yield _Candidate("tuxpaint-stamps-default", f"tuxpaint/{place}", kind, stamp_caption(path), path)


def _clipart(root: Path) -> Iterator[_Candidate]:
    folder = root / "usr/share/openclipart/png"
    for path in sorted(folder.rglob("*.png")):
        place = path.relative_to(folder).with_suffix("").as_posix()
        if _CLIPART.match(str(Path(place).parent)) and not _NOT_CLIPART.search(place):
            try:
                caption = openclipart_caption(path, folder)
            except RejectedError:
                continue
            if not _NOT_CLIPART.search(caption):
                yield _Candidate("openclipart-png", f"openclipart/{place}", "drawing", caption, path)


def _furniture(root: Path, pictures: Path, workers: int) -> Iterator[_Candidate]:
    for model, path in models.render(models.catalogue(root), pictures, workers):
        yield _Candidate(_FURNITURE, model.identity, "render", model.caption, path)


def _cleaned(candidate: _Candidate, folder: Path) -> Cutout | str:
    """Write the cleaned picture and return its cut-out, or the reason why there is none."""
    try:
        original = decode(candidate.path)
        rgba = clean(original)
    except RejectedError as reason:
        return str(reason)
    kind: Kind = candidate.kind or ("photograph" if flatness(original) < _PHOTOGRAPH_FLATNESS else "drawing")
    name = hashlib.sha256(f"{candidate.identity} {candidate.path.name}".encode()).hexdigest()[:16]
    path = folder / f"{name}.png"
    Image.fromarray(rgba).save(path, compress_level=1)
    return Cutout(candidate.source, candidate.identity, kind, candidate.caption, path)


def _wallpapers(unpacked: Path) -> dict[str, Path]:
    """The largest picture of every wallpaper by identity, its dark and small variants left out."""
    largest: dict[str, tuple[int, Path]] = {}
    for package in _WALLPAPERS:
        for path in sorted((unpacked / package).rglob("*")):
            if path.suffix not in {".jpg", ".png", ".webp"} or "screenshot" in path.name or "dark" in path.parent.name:
                continue
            name = path.parts[path.parts.index("contents") - 1] if "contents" in path.parts else path.stem
            if re.search(r"logo|symbolic|truchet|grid|Transparent", name.replace("no-logo", "")):
                continue
            identity = "wallpaper/" + re.sub(r"(-[ld]|_\d+x\d+)$", "", name)
            if path.stat().st_size > largest.get(identity, (0, path))[0]:
                largest[identity] = (path.stat().st_size, path)
    return {identity: path for identity, (_, path) in sorted(largest.items())}


def prepare(cache_dir: Path, workers: int = 2) -> Counter[str]:
    """Fetch, clean and index everything; return how many candidates were kept or rejected, by "source: reason"."""
    unpacked = fetch(cache_dir)
    cutout_dir, wallpaper_dir = cache_dir / "cutouts", cache_dir / "wallpapers"
    cutout_dir.mkdir(exist_ok=True)
    wallpaper_dir.mkdir(exist_ok=True)
    candidates = [
        *_emoji(unpacked / "fluent-emoji-3d"),
        *_stamps(unpacked / "tuxpaint-stamps-default"),
        *_clipart(unpacked / "openclipart-png"),
        *_furniture(unpacked / _FURNITURE, cache_dir / "views", workers),
    ]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(_cleaned, candidates, [cutout_dir] * len(candidates), chunksize=16))
        found = _wallpapers(unpacked)
        wallpapers = dict(pool.map(_shrunk_wallpaper, found.items(), [wallpaper_dir] * len(found)))
    cutouts, tally = _distinct(candidates, results)
    index = {
        "cutouts": [
            {"source": c.source, "identity": c.identity, "kind": c.kind, "caption": c.caption, "path": c.path.name}
            for c in cutouts
        ],
        "wallpapers": {identity: path.name for identity, path in wallpapers.items()},
    }
    (cache_dir / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False))
    log.info("indexed %d cut-outs and %d wallpapers", len(cutouts), len(wallpapers))
    return tally


def _shrunk_wallpaper(item: tuple[str, Path], folder: Path) -> tuple[str, Path]:
    identity, path = item
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as picture:
        picture.draft("RGB", (2 * _WALLPAPER_LONG_SIDE, 2 * _WALLPAPER_LONG_SIDE))
        small = picture.convert("RGB")
        small.thumbnail((_WALLPAPER_LONG_SIDE, _WALLPAPER_LONG_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    out = folder / f"{identity.rpartition('/')[2]}.jpg"
    small.save(out, quality=95)
    return identity, out


def _distinct(candidates: list[_Candidate], results: list[Cutout | str]) -> tuple[list[Cutout], Counter[str]]:
    """Drop pictures that occur twice, cap openclipart, give look-alikes one identity, leave no furniture to test on."""
    tally: Counter[str] = Counter()
    kept: list[tuple[Cutout, Thumbnail]] = []
    seen: set[bytes] = set()
    for candidate, result in zip(candidates, results, strict=True):
        if isinstance(result, str):
            tally[f"{candidate.source}: {result}"] += 1
            continue
        with Image.open(result.path) as picture:
            thumb = thumbnail(np.asarray(picture.convert("RGBA")))
        duplicate = thumb.tobytes() in seen
        seen.add(thumb.tobytes())
        tally[f"{candidate.source}: {'duplicate' if duplicate else 'kept'}"] += 1
        if not duplicate:
            kept.append((result, thumb))
    clipart = (c.identity for c, _ in kept if c.source == "openclipart-png")
    by_chance = sorted(clipart, key=lambda identity: hashlib.sha256(identity.encode()).digest())
    chosen = set(by_chance[:_CLIPART_LIMIT])
    kept = [(c, thumb) for c, thumb in kept if c.source != "openclipart-png" or c.identity in chosen]
    shared = merged_identities([c.identity for c, _ in kept], np.stack([thumb for _, thumb in kept]))
    found = [replace(c, identity=identity) for (c, _), identity in zip(kept, shared, strict=True)]
    return [c for c in found if c.source != _FURNITURE or split_of(c.identity) == "train"], tally


def load_index(cache_dir: Path) -> tuple[tuple[Cutout, ...], dict[str, Path]]:
    """Read what `prepare` wrote: the cut-outs, and wallpaper files by identity."""
    index: dict[str, Any] = json.loads((cache_dir / "index.json").read_text())
    cutouts = tuple(
        Cutout(c["source"], c["identity"], c["kind"], c["caption"], cache_dir / "cutouts" / c["path"])
        for c in index["cutouts"]
    )
    return cutouts, {identity: cache_dir / "wallpapers" / name for identity, name in index["wallpapers"].items()}
