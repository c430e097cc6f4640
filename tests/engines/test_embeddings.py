"""Embeddings of images: computed once, kept by content under a budget."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from deocc_engines.embeddings import EmbeddingCache
from deocc_engines.segmenter import Embedding


def embedding(kilobytes: int = 1) -> Embedding:
    return Embedding(torch.zeros(1, 256 * kilobytes, 1, 1), (8, 8))


def test_the_least_recently_used_goes_when_the_budget_is_spent() -> None:
    cache, computed = EmbeddingCache(max_bytes=3 * 1024), list[str]()

    def get(image_id: str) -> None:
        cache.get(image_id, lambda: computed.append(image_id) or embedding())  # type: ignore[func-returns-value]

    for image_id in "abcad":  # b is the one that was not asked for again
        get(image_id)
    assert cache.nbytes == 3 * 1024
    for image_id in "acd":
        get(image_id)
    assert computed == ["a", "b", "c", "d"]
    get("b")
    assert computed == ["a", "b", "c", "d", "b"]


def test_one_that_is_larger_than_the_budget_is_kept_alone() -> None:
    cache = EmbeddingCache(max_bytes=1024)
    cache.get("small", embedding)
    large = cache.get("large", lambda: embedding(2))
    assert cache.get("large", embedding) is large
    assert cache.nbytes == large.nbytes


def test_callers_at_once_wait_for_one_computation() -> None:
    cache, seen = EmbeddingCache(), list[bool]()
    begun, go = threading.Event(), threading.Event()
    computed: list[int] = []
    cache.on_lookup = seen.append

    def compute() -> Embedding:
        computed.append(1)
        begun.set()
        assert go.wait(10)
        return embedding()

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get, "a", compute)
        assert begun.wait(10)
        others = [pool.submit(cache.get, "a", compute) for _ in range(3)]
        while len(seen) < 4:
            threading.Event().wait(0.001)
        go.set()
        assert len({id(future.result(10)) for future in (first, *others)}) == 1
    assert computed == [1]
    assert seen == [False, True, True, True]


def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    cache = EmbeddingCache()

    def fail() -> Embedding:
        raise RuntimeError("the card is gone")

    with pytest.raises(RuntimeError, match="gone"):
        cache.get("a", fail)
    assert cache.get("a", embedding).size == (8, 8)
