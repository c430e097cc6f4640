"""Many objects in one run: manifests in, prior images out. Light: no torch, no ray."""

from deocc.batch.crew import each
from deocc.batch.draw import Drawn, draw
from deocc.batch.manifest import Entry, InvalidManifest, Manifest, Problem, read_manifest
from deocc.batch.priors import Layout
from deocc.batch.run import Outcome, Plan, run

__all__ = [
    "Drawn",
    "Entry",
    "InvalidManifest",
    "Layout",
    "Manifest",
    "Outcome",
    "Plan",
    "Problem",
    "draw",
    "each",
    "read_manifest",
    "run",
]
