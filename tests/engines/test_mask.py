"""Masks on the wire, and what becomes of their specks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from deocc_engines.deoccluder import Deoccluder
from deocc_engines.errors import InvalidPrompt
from deocc_engines.image import Photo
from deocc_engines.mask import decode_rle, encode_rle
from deocc_engines.prompt import Prompt


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_run_lengths_come_back_as_the_mask(mask: np.ndarray) -> None:
    height, width = mask.shape
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), width, height, width, height), mask)


@given(st.binary(max_size=40))
def test_no_bytes_break_the_decoder(counts: bytes) -> None:
    try:
        decoded = decode_rle(counts, 8, 6, 8, 6)
    except InvalidPrompt:
        return
    assert coco.area({"size": [6, 8], "counts": counts}) == decoded.sum()


@pytest.mark.parametrize("speck", [(2, 2), (80, 110)])
def test_the_modal_mask_that_is_returned_is_the_one_that_was_used(
    deoccluder: Deoccluder, photo: Photo, disc: np.ndarray, speck: tuple[int, int]
) -> None:
    spoilt = disc.copy()
    spoilt[speck] = True
    np.testing.assert_array_equal(deoccluder.complete(photo, Prompt(mask=spoilt)).modal.mask, disc)
