"""Files of the Hugging Face hub, through huggingface-hub: its cache (HF_HOME), its offline mode (HF_HUB_OFFLINE), its
resumption of what was cut off, its progress on standard error."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deocc_engines.convert.tensors import STEMS, weight_files
from deocc_engines.errors import InvalidBundle, NotFound, Unavailable

__all__ = ["fetch", "fetch_weights"]


def fetch(hub_id: str, revision: str | None, patterns: Iterable[str]) -> Path:
    """The folder with the files of one revision; its name is the commit.

    Args:
        revision: a branch, tag or commit; None: the main branch.

    Raises:
        NotFound: there is no such repository or revision, or it is not open to this user.
        Unavailable: the hub cannot be reached, and the cache does not hold all files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except RevisionNotFoundError as error:
        raise NotFound(f"{hub_id} has no revision {revision!r}", field="revision") from error
    except RepositoryNotFoundError as error:  # GatedRepoError among them
        raise NotFound(f"{hub_id} is not on the hub, or not open to you", field="name") from error
    except LocalEntryNotFoundError as error:
        raise Unavailable(f"the hub cannot be reached, and the cache does not hold all of {hub_id}") from error
    except (HfHubHTTPError, OSError) as error:
        raise Unavailable(f"{hub_id} could not be fetched: {error}") from error


def fetch_weights(
    hub_id: str, revision: str | None, patterns: Iterable[str], components: Iterable[str], *, half: bool
) -> Path:
    """The same with the safetensors of some components in diffusers' layout.

    Of a component's two variants only the wanted one is fetched, unless the repository has but the other.

    Args:
        half: want the variant "fp16".
    """
    components, patterns = tuple(components), tuple(patterns)
    failure: Unavailable | None = None
    for variant in ("fp16", "") if half else ("", "fp16"):
        weights = [pattern for component in components for pattern in _patterns(component, variant)]
        try:
            folder = fetch(hub_id, revision, [*patterns, *weights])
        except Unavailable as error:  # offline, the cache may hold the other variant
            failure = failure or error
            continue
        if all(_has_weights(folder / component) for component in components):
            return folder
    raise failure or InvalidBundle(f"{hub_id} has no safetensors for {', '.join(components)}")


def _patterns(component: str, variant: str) -> list[str]:
    dotted = f".{variant}" if variant else ""
    return [
        f"{component}/{stem}{pattern}"
        for stem in STEMS
        for pattern in (
            f"{dotted}.safetensors",
            f"{dotted}-*-of-*.safetensors",
            f".safetensors.index{dotted}.json",
        )
    ]


def _has_weights(folder: Path) -> bool:
    try:
        weight_files(folder, half=False)
    except InvalidBundle:
        return False
    return True
