"""Small parts on their own: what cannot be provoked from outside in reasonable time."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from deocc_engines import errors
from deocc_engines.errors import NotFound, Overloaded
from deocc_engines.image import image_id_of
from deocc_service.errors import STATUS, public, status_of
from deocc_service.images import ImageStore
from deocc_service.replies import negotiate
from deocc_service.scaling import BacklogPolicy
from deocc_service.settings import Settings


def test_images_stay_until_they_expire_and_use_renews_them(tmp_path: Path) -> None:
    now = [1000.0]
    store, other = (ImageStore(ttl=10, max_bytes=10, folder=tmp_path, clock=lambda: now[0]) for _ in range(2))
    first = store.put(b"aaaa")
    now[0] += 6
    assert other.get(first) == b"aaaa"  # another replica, and a new beginning
    second = other.put(b"bbbb")
    with pytest.raises(Overloaded) as error:
        store.put(b"cccc")
    assert 9 <= error.value.retry_after <= 11
    now[0] += 9
    assert (store.get(first), store.get(second)) == (b"aaaa", b"bbbb")  # both were promised
    now[0] += 11
    with pytest.raises(NotFound):
        store.get(first)
    assert store.get(store.put(b"cccccccc")) == b"cccccccc"


def test_what_merely_came_with_a_request_makes_room(tmp_path: Path) -> None:
    now = [1000.0]
    store = ImageStore(ttl=10, max_bytes=10, folder=tmp_path, clock=lambda: now[0])
    for content in (b"aaaa", b"bbbb", b"cccc"):
        store.note(image_id_of(content), content)
        now[0] += 1
    kept = [content for content in (b"aaaa", b"bbbb", b"cccc") if _there(store, content)]
    assert kept == [b"bbbb", b"cccc"]
    store.put(b"dddddddd")
    store.note(image_id_of(b"eeee"), b"eeee")
    assert [content for content in (b"bbbb", b"cccc", b"dddddddd", b"eeee") if _there(store, content)] == [b"dddddddd"]


@pytest.mark.parametrize("image_id", ["", "sha256:", "../uploaded", "sha256:" + "../" * 21 + "x", "sha256:" + "A" * 64])
def test_an_id_is_never_a_path(tmp_path: Path, image_id: str) -> None:
    with pytest.raises(NotFound):
        ImageStore(ttl=10, max_bytes=10, folder=tmp_path).get(image_id)


def test_a_full_disk_and_a_foreign_hand_are_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(ttl=10, max_bytes=100, folder=tmp_path)
    image_id = store.put(b"aaaa")
    (tmp_path / "uploaded" / image_id).write_bytes(b"bbbb")
    os.utime(tmp_path / "uploaded" / image_id, (0, 2**31))
    with pytest.raises(NotFound):
        store.get(image_id)

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    store.note(image_id_of(b"cccc"), b"cccc")
    with pytest.raises(Overloaded):
        store.put(b"cccc")
    assert len(list((tmp_path / "uploaded").iterdir())) == 1


def _there(store: ImageStore, content: bytes) -> bool:
    try:
        return store.get(image_id_of(content)) == content
    except NotFound:
        return False


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


def test_one_file_says_what_an_operator_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEOCC_CONFIG", str(Path(__file__).parents[2] / "deploy" / "serve.yaml"))
    shipped = Settings.read()
    monkeypatch.delenv("DEOCC_CONFIG")
    assert shipped == Settings.read()
    file = tmp_path / "serve.yaml"
    monkeypatch.setenv("DEOCC_CONFIG", str(file))
    with pytest.raises(ValueError, match="names no file"):
        Settings.read()
    file.write_text("queue: 7\ncompleters: {max: 4, gpus: 0.5}\n")
    monkeypatch.setenv("DEOCC_QUEUE", "9")
    settings = Settings.read()
    assert (settings.queue, settings.completers.max, settings.completers.gpus) == (9, 4, 0.5)
    for wrong in ("quue: 7", "completers: {maximum: 4}", "completers: {min: 3, max: 2}", "slots: many"):
        file.write_text(wrong)
        with pytest.raises(ValidationError):
            Settings.read()


@pytest.mark.parametrize(
    ("backlog", "current", "wanted"),
    [([], 1, 1), ([35.0], 1, 4), ([8.0, 9.0], 2, 2), ([3.0, 1.0], 2, 1), ([200.0], 1, 6), ([0.0], 1, 1)],
)
def test_replicas_follow_the_seconds_of_accepted_work(backlog: list[float], current: int, wanted: int) -> None:
    context = SimpleNamespace(
        aggregated_metrics={"backlog_seconds": dict(enumerate(backlog))},
        target_num_replicas=current,
        total_num_requests=len(backlog),
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=6,
    )
    assert BacklogPolicy(10.0)(context) == (wanted, {})
