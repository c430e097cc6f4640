"""A node is lost and replaced, under the configuration that KubeRay gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In a process of its own: hosts that other tests start must be the first to import Ray.
PROGRAM = """
import sys
import deocc
from deploy.cluster.two_nodes import TwoNodes

def ask(cluster):
    with deocc.Client(f"http://127.0.0.1:{cluster.http_port}", timeout=30) as client:
        whole = client.complete("examples/street.png", points=[(200, 260)], seed=7)
    with deocc.Client(grpc=f"127.0.0.1:{cluster.grpc_port}", timeout=30) as client:
        assert client.complete("examples/street.png", points=[(200, 260)], seed=7).best.png == whole.best.png
    return whole.best.png

with TwoNodes("tests.deploy.fake_application:application", {"FAKE_STEPS": sys.argv[1]}) as cluster:
    at = cluster.replicas()
    assert at["Segmenter"] == at["Completer"] != at["Edge"], at
    before = ask(cluster)
    cluster.lose_models_node()
    cluster.add_models_node()
    print("ready again after", cluster.wait_until_ready())
    assert ask(cluster) == before
    assert cluster.replicas()["Completer"] != at["Completer"]
"""


@pytest.mark.ray
@pytest.mark.slow
def test_service_comes_back_on_a_new_node(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "steps")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
