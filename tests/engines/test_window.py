from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deocc_engines.prompt import Box
from deocc_engines.window import Window

sides = st.integers(16, 300)


@given(sides, sides, st.data())
def test_local_window_holds_the_box_and_stays_inside_where_it_fits(
    width: int, height: int, data: st.DataObject
) -> None:
    x0 = data.draw(st.integers(0, width - 1))
    y0 = data.draw(st.integers(0, height - 1))
    box = Box(x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height)))
    window = Window.around(box, width, height, 32)
    assert window.left <= box.x_min
    assert window.left + window.side >= box.x_max
    assert window.top <= box.y_min
    assert window.top + window.side >= box.y_max
    if window.side <= min(width, height):
        assert window.region(width, height) == (
            window.left,
            window.top,
            window.left + window.side,
            window.top + window.side,
        )


@given(sides, sides)
def test_what_is_taken_without_scaling_can_be_put_back(width: int, height: int) -> None:
    image = np.random.default_rng(0).random((height, width, 3), np.float32)
    window = Window.whole(width, height, max(width, height))
    np.testing.assert_array_equal(window.put(window.take(image, 0.5), width, height), image)


def test_outside_of_the_image_is_filled() -> None:
    taken = Window(-8, 0, 32, 32).take(np.zeros((32, 40), np.float32), 7.0)
    assert (taken[:, :8] == 7).all()
    assert (taken[:, 8:] == 0).all()


def test_looking_through_another_window_is_the_same_as_looking_at_the_image() -> None:
    y, x = np.mgrid[:256, :256].astype(np.float32)
    image = np.stack([x, y, x + y], axis=2)  # linear: interpolation loses nothing
    whole, part = Window.whole(256, 256, 64), Window(64, 96, 64, 64)
    seen = part.take_from(whole, whole.take(image, 0.0), 0.0)
    np.testing.assert_allclose(seen[4:-4, 4:-4], part.take(image, 0.0)[4:-4, 4:-4], atol=0.51)
