"""What Serve imports in place of the service's application: the same one around the fake engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ray import serve

from deocc_service.app import bind
from deocc_service.settings import Settings
from tests.service.fake_engine import FakeLoad


def application(_: dict[str, Any]) -> serve.Application:
    return bind(Settings.read(), FakeLoad(Path(os.environ["FAKE_STEPS"])))
