"""The images' recipe, as far as it can be checked without building it, and the program of their health check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deocc_service.settings import Settings
from tests.deploy.conftest import DEPLOY

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")
PUBLISHED = ("client", "cpu", "gpu", "builder")


def stages() -> dict[str, str]:
    """The text of each stage, with that of the stages of this file that it stands on."""
    texts: dict[str, str] = {}
    for part in re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[1:]:
        head, body = part.split("\n", 1)
        base, _, name = head.partition(" AS ")
        texts[name] = texts.get(base, "") + body
    return texts


def test_dockerfile_passes_hadolint() -> None:
    done = subprocess.run([HADOLINT, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", PUBLISHED)
def test_images_run_as_nobody_special_and_hold_no_build_tools(target: str) -> None:
    text = stages()[target]
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users[-1] == "10001"
    assert "HEALTHCHECK" in text
    assert "gcc" not in text
    assert "pip uninstall" in text
    # Environments are copied, not installed, and so is nothing of the stages that installed them.
    assert "install --constraint" not in text


def test_every_package_is_installed_at_the_version_that_is_tested() -> None:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip --python [^&\n]*", text)
    assert len(installs) == 5
    assert all("--constraint /constraints.txt" in line for line in installs)


def test_what_the_recipe_copies_reaches_the_builder() -> None:
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
        for word in line.split()
    ]
    root = DEPLOY.parent
    sent = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == sent
    assert all((root / name).exists() for name in copied)


@pytest.mark.parametrize("target", PUBLISHED)
def test_service_takes_the_settings_of_the_images(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in re.findall(r"(DEOCC_\w+)=(\S+)", stages()[target]):
        monkeypatch.setenv(name, value)
    Settings.read()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_check_says_what_readyz_says(status: int, code: int) -> None:
    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert health(server.server_port) == code
        finally:
            server.shutdown()
            thread.join()
    assert health(server.server_port) == 1  # nobody listens any more


def health(port: int) -> int:
    program = DEPLOY / "docker" / "healthy.py"
    return subprocess.run([sys.executable, program], env=os.environ | {"DEOCC_HTTP_PORT": str(port)}).returncode
