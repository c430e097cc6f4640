"""Small parts on their own: what cannot be provoked from outside in reasonable time."""

from __future__ import annotations

import pytest

from deocc_engines import errors
from deocc_service.errors import STATUS, public, status_of
from deocc_service.images import ImageStore
from deocc_service.replies import negotiate
from deocc_service.settings import Settings


def test_images_expire_and_the_least_recently_used_goes_first() -> None:
    now = [0.0]
    store = ImageStore(ttl=10, max_bytes=10, clock=lambda: now[0])
    first, second = store.put(b"1" * 4), store.put(b"2" * 4)
    assert store.get(first) == b"1" * 4
    third = store.put(b"3" * 4)
    with pytest.raises(errors.NotFound):
        store.get(second)
    now[0] = 9
    assert store.get(first)
    now[0] = 12
    assert store.get(first)
    with pytest.raises(errors.NotFound):
        store.get(third)


def test_every_error_has_a_status_of_its_own_or_its_parents() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind is not errors.DeoccError:
            assert status_of(kind("why")) in STATUS.values()
    assert status_of(errors.InvalidPrompt("why")).http == 400
    assert "secret" not in public(RuntimeError("secret")).message


def test_settings_are_read_from_the_environment_and_refuse_what_they_do_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEOCC_HTTP_PORT", "1234")
    monkeypatch.setenv("DEOCC_LIMITS__MAX_STEPS", "7")
    settings = Settings.read(grpc_port=5)
    assert (settings.http_port, settings.grpc_port, settings.limits.max_steps) == (1234, 5, 7)
    monkeypatch.setenv("DEOCC_HTPP_PORT", "1")
    with pytest.raises(ValueError, match="DEOCC_HTPP_PORT"):
        Settings.read()
    with pytest.raises(ValueError, match="slots"):
        Settings(slots=0)
    with pytest.raises(ValueError, match="colour"):
        Settings(colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("image/*", "image/png"),
        ("image/png, application/json;q=0.5", "image/png"),
        ("image/png;q=0.1, application/json", "application/json"),
        ("text/html", "application/json"),
        ("*/*;q=0.1, image/png;q=nonsense", "application/json"),
    ],
)
def test_negotiation(accept: str | None, expected: str) -> None:
    assert negotiate(accept, ("application/json", "image/png")) == expected
