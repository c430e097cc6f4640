"""Shapes and types that the engines' annotations state are checked whenever a test calls them."""

from __future__ import annotations

from jaxtyping import install_import_hook

import tests.checking  # noqa: F401 - the hook names it

# All that computes. `deoccluder` and `embeddings` are the seams where tests put fakes.
COMPUTING = (
    "completer",
    "completion",
    "guidance",
    "image",
    "mask",
    "networks",
    "paste",
    "prompt",
    "runtimes",
    "sampler",
    "segmenter",
    "text",
    "window",
)
install_import_hook([f"deocc_engines.{name}" for name in COMPUTING], "tests.checking.checked")
