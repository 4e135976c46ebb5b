"""The tiny world, made once for the benchmarks that look at it."""

from __future__ import annotations

import pytest

from tests.support.tiny_world import TinyWorld, make_tiny_world


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_tiny_world(tmp_path_factory.mktemp("tiny-world"))
