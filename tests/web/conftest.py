"""The real single-process host with the fake engine in a thread, and headless Chromium in front of it."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from deocc_service.local import LocalHost
from deocc_service.settings import Settings

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZE = (300, 200)  # of the picture that most tests open
GREY = 200


def _fake_engine() -> ModuleType:
    """The service's own fake; test folders are no packages, so it is loaded by its path."""
    path = Path(__file__).parents[1] / "service" / "fake_engine.py"
    spec = importlib.util.spec_from_file_location("deocc_web_fake_engine", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Host:
    """A running service. `steps()` counts the denoising steps it has taken."""

    url: str
    steps: Callable[[], int]


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Host]:
    """A LocalHost in a thread of its own: Playwright's blocking API wants this one."""
    load = _fake_engine().FakeLoad(folder / "steps", seconds=0.01)
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        end = asyncio.Event()
        try:
            fitted = Settings(http_port=0, grpc_port=0, metrics_port=0, drain_seconds=1, **settings)
            async with LocalHost(fitted, load) as host:
                started.set_result((f"http://127.0.0.1:{host.http_port}", asyncio.get_running_loop(), end))
                await end.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        url, loop, end = started.result(timeout=60)
        yield Host(url, lambda: load.steps)
        loop.call_soon_threadsafe(end.set)
    finally:
        thread.join(timeout=30)
        assert not thread.is_alive(), "the host did not stop"


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One service for all tests: nothing mutable is shared between its requests."""
    with running(tmp_path_factory.mktemp("host"), slots=2) as host:
        yield host


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium of the system."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Playground:
    """The page, what it asked of the service, and how a visitor uses it."""

    page: Page
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(10_000)
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: "Content Security" in said.text and self.faults.append(said.text))

    def _note(self, request: Any) -> None:
        if request.method == "POST" and not request.url.endswith("/v1/images"):
            self.asked.append((request.url.rsplit("/", 1)[1], request.post_data_json))

    def last(self, call: str) -> dict[str, Any]:
        """The newest body of this call."""
        return next(body for name, body in reversed(self.asked) if name == call)

    @property
    def stage(self) -> Locator:
        return self.page.locator("#stage")

    def open(self, content: bytes, name: str = "photo.png", kind: str = "image/png") -> None:
        """Picks a file and waits for its upload."""
        with self.page.expect_response("**/v1/images"):
            self.page.set_input_files("input.file >> nth=0", {"name": name, "mimeType": kind, "buffer": content})
        self.stage.wait_for()
        # The stage is fitted in the next frame.
        fitted = "stage => Math.abs(stage.width - stage.clientWidth * devicePixelRatio) < 1"
        self.until(lambda: self.stage.evaluate(fitted))

    def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        """Lets the page go on until the condition holds. (Playwright's own wait is a script that the page forbids.)"""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come true in time"
            self.page.wait_for_timeout(20)

    def on_screen(self, x: float, y: float, size: tuple[int, int] = SIZE) -> tuple[float, float]:
        """Where a point of the image is in the window, told by the browser's layout alone."""
        box = self.stage.bounding_box()
        assert box is not None
        return box["x"] + x / size[0] * box["width"], box["y"] + y / size[1] * box["height"]

    def click(self, x: float, y: float, size: tuple[int, int] = SIZE, **how: Any) -> None:
        """Clicks a point of the image and waits for its mask."""
        with self.page.expect_response("**/v1/segment"):
            self.page.mouse.click(*self.on_screen(x, y, size), **how)

    def pixel(self, x: float, y: float, size: tuple[int, int] = SIZE) -> list[int]:
        """RGB that the stage shows at a point of the image."""
        return self.stage.evaluate(
            """(stage, [x, y]) => {
                const { data } = stage.getContext("2d").getImageData(x * stage.width, y * stage.height, 1, 1);
                return [...data].slice(0, 3);
            }""",
            [x / size[0], y / size[1]],
        )

    def complete(self, **fields: str) -> None:
        """Fills in the form and submits it."""
        for name, value in fields.items():
            self.page.fill(f"[name={name}]", value)
        self.page.get_by_role("button", name="Complete", exact=True).click()


@pytest.fixture
def visit(browser: Browser, host: Host) -> Iterator[Callable[..., Playground]]:
    """Opens the page; no visit may leave a script error or a breach of the content security policy."""
    visits: list[Playground] = []

    def visit(url: str = host.url, **context: Any) -> Playground:
        page = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **context}).new_page()
        visits.append(Playground(page))
        page.goto(url)
        return visits[-1]

    yield visit
    for visited in visits:
        visited.page.context.close()
        assert visited.faults == []


@pytest.fixture
def playground(visit: Callable[..., Playground]) -> Playground:
    """The page with a grey picture open."""
    playground = visit()
    playground.open(png(SIZE))
    return playground


def png(size: tuple[int, int]) -> bytes:
    """A plain grey picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (GREY, GREY, GREY)).save(buffer, "PNG")
    return buffer.getvalue()
