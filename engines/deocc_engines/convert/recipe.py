"""Which parts make the bundle of a name.

`deocc-anything` publishes a completer, the SAMs are segmenters, and an engine needs both. So `deocc-anything` comes
with a SAM (or the segmenter of a bundle), and a SAM comes with the completer of a bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deocc_engines.bundle import Bundle, find
from deocc_engines.convert import published
from deocc_engines.convert.component import DTYPES
from deocc_engines.convert.published import PublishedSam, Repository
from deocc_engines.errors import InvalidOption, NotFound
from deocc_engines.folders import engines_folder

__all__ = ["NAMES", "SCHEDULERS", "ConvertOptions", "Recipe", "recipe_of"]

NAMES = (published.COMPLETER, *published.SEGMENTERS)
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


@dataclass(frozen=True)
class ConvertOptions:
    """How a bundle is made."""

    segmenter: str | None = None  # for deocc-anything: a published SAM, or a bundle whose segmenter is taken
    completer: str | None = None  # for a SAM: the bundle whose completer is taken; None: the default engine
    dtype: str = "float16"  # of the weights on disk; or "float32"
    scheduler: str = "ddim"  # one of SCHEDULERS; DDIM is what is published
    out: Path | None = None  # the bundle's folder; None: its name in `engines_folder`
    replace: bool = False  # a bundle that is there already

    def check(self) -> None:
        """Raises InvalidOption."""
        for field, value, allowed in (
            ("dtype", self.dtype, tuple(DTYPES)),
            ("scheduler", self.scheduler, tuple(SCHEDULERS)),
        ):
            if value not in allowed:
                raise InvalidOption(f"expected one of {', '.join(allowed)}", field=field)


@dataclass(frozen=True)
class Recipe:
    """What a bundle is made of; a part is published or a bundle's.

    Attributes:
        completer: None: the published DeoccAnything.
    """

    name: str
    completer: Bundle | None
    segmenter: PublishedSam | Bundle

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """Whose licences must be accepted; that of what is named comes first."""
        completer = () if self.completer else (published.CHECKPOINTS, published.BASE)
        return (*completer, *((self.segmenter.repository,) if isinstance(self.segmenter, PublishedSam) else ()))

    def out(self, options: ConvertOptions) -> Path:
        """The bundle's folder. What is there is replaced only if that is asked for, and only if it is a bundle.

        Raises:
            InvalidOption: something is there.
        """
        out = options.out or engines_folder() / self.name
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            if not (out / "manifest.json").is_file():
                raise InvalidOption(f"{out} is there already, and no bundle", field="out")
            if not options.replace:
                raise InvalidOption(f"{out} is there already; --replace replaces it", field="out")
        return out


def recipe_of(name: str, options: ConvertOptions) -> Recipe:
    """Finds the parts.

    Raises:
        NotFound: no engine of this name is published, or there is no such bundle.
        InvalidOption: a part is asked for that the name itself stands for.
    """
    if name == published.COMPLETER:
        if options.completer is not None:
            raise InvalidOption(f"{name} is a completer itself; choose a segmenter", field="completer")
        segmenter = options.segmenter or published.DEFAULT_SEGMENTER
        return Recipe(name, None, published.SEGMENTERS.get(segmenter) or find(segmenter))
    if name not in published.SEGMENTERS:
        raise NotFound(f"no engine {name!r} is published; there are {', '.join(NAMES)}", field="name")
    if options.segmenter is not None:
        raise InvalidOption(f"{name} is a segmenter itself; choose a completer's bundle", field="segmenter")
    donor = find(options.completer)
    return Recipe(f"{donor.name.partition('+')[0]}+{name}", donor, published.SEGMENTERS[name])
