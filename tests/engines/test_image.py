"""Whatever bytes come as an image: a photo within the limits, or a typed error."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deocc_engines.errors import DeoccError
from deocc_engines.image import decode_image
from deocc_engines.limits import Limits

LIMITS = Limits(max_bytes=20_000, max_pixels=4_000)


def encoded(format: str, mode: str) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert(mode).save(out, format)
    return out.getvalue()


GOOD = [encoded("PNG", "RGBA"), encoded("PNG", "P"), encoded("JPEG", "RGB"), encoded("WEBP", "RGB")]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    content=st.sampled_from(GOOD),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)), max_size=4),
    cut=st.floats(0, 1),
)
def test_damaged_images_are_photos_or_refused(content: bytes, damage: list[tuple[float, bytes]], cut: float) -> None:
    found = bytearray(content[: max(1, round(len(content) * (1 - cut**4)))])
    for where, what in damage:
        at = int(where * len(found))
        found[at : at + len(what)] = what
    try:
        photo = decode_image(bytes(found), LIMITS)
    except DeoccError:
        return
    assert photo.width * photo.height <= LIMITS.max_pixels
    assert photo.pixels.shape == (photo.height, photo.width, 3)
