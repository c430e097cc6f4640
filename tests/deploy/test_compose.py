"""compose.yaml: well formed, and closed to everybody but this machine."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml

from deocc_service.settings import Settings
from tests.deploy.conftest import DEPLOY
from tests.deploy.test_images import PUBLISHED

FILE = DEPLOY / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]


def test_compose_file_fits_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_reached_from_this_machine_only_and_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert ":" in service["image"]
    for mount in service["volumes"]:
        source = mount.split(":")[0]
        assert not source.startswith(".") or (DEPLOY / source).exists(), source


def test_server_is_built_and_set_up_as_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    server = SERVICES["server"]
    assert server["build"]["target"] in PUBLISHED
    assert (FILE.parent / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    for name, value in server["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert int(server["stop_grace_period"].removesuffix("s")) > settings.drain_seconds


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "deocc.yaml").read_text())["providers"]
    folder = provider["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in SERVICES["grafana"]["volumes"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / "dashboards" / home.removeprefix(folder + "/")).is_file()
