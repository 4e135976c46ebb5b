from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.broker import WORKER_TIMEOUTS
from contract.job_store import JobStore
from tests.support.valkey import Valkey


@pytest.fixture
def store(valkey: Valkey) -> Iterator[JobStore]:
    valkey.client.flushall()
    store = JobStore(valkey.url, WORKER_TIMEOUTS)
    yield store
    store.close()
