"""Shapes and types that the engines' annotations state are checked whenever a test calls them."""

from __future__ import annotations

from jaxtyping import install_import_hook

import tests.checking  # noqa: F401 - the hook names it

install_import_hook("deocc_engines", "tests.checking.checked")
