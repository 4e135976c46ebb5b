"""How `make test` shares the processors: as many processes as there are, each with one thread of torch and with whole
files of tests, so that what a file sets up once is set up once. And the one broker of each of these processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.valkey import Valkey

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported, here or in a process that a test starts
    os.environ["OMP_NUM_THREADS"] = "1"

TOGETHER = ("tests/e2e/", "tests/quant/pipelines/")
"""Folders whose files share what takes long to set up: a running service, calibrated variants."""


def shared_by(test: str) -> str:
    """What one process runs as a whole, given a test's id: a file, or a folder of TOGETHER."""
    file = test.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The distribution of `-n`."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared_by(nodeid)

    return Together(config, log)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A real Valkey server. Tests that use it empty it first."""
    with Valkey() as server:
        yield server
