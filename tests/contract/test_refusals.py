"""A broker that answers, and refuses, is as good as none: one error, whatever its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from contract.announcements import census
from contract.broker import Timeouts
from contract.errors import StoreUnavailable
from contract.job_store import AsyncJobStore, JobStore
from contract.transitions import submit
from tests.support.submissions import submission
from tests.support.valkey import Valkey

TIMES = Timeouts(read=2, connect=1)
REFUSALS: dict[str, Callable[[Valkey], None]] = {
    "too few replicas": lambda server: server.client.config_set("min-replicas-to-write", 1),
    "takes no writes": lambda server: server.client.replicaof("127.0.0.1", 1),
    "no memory left": lambda server: server.client.config_set("maxmemory", 1),
    "another password": lambda server: server.client.config_set("requirepass", "x"),
    "does not allow": lambda server: server.client.acl_setuser("default", enabled=True, commands=["-evalsha", "-eval"]),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_is_an_unavailable_store_with_its_reason(reason: str) -> None:
    with Valkey() as server:
        REFUSALS[reason](server)
        store, other = JobStore(server.url, TIMES), AsyncJobStore(server.url, TIMES)
        with pytest.raises(StoreUnavailable, match=reason):
            store.run(submit(submission(), open_jobs=9))
        with pytest.raises(StoreUnavailable, match=reason):
            asyncio.run(other.run(submit(submission(), open_jobs=9)))
        store.close()


def test_a_refusing_broker_serves_again_when_its_reason_is_gone() -> None:
    with Valkey() as server:
        store = JobStore(server.url, TIMES)
        server.client.config_set("min-replicas-to-write", 1)
        with pytest.raises(StoreUnavailable):
            store.run(submit(submission(), open_jobs=9))
        server.client.config_set("min-replicas-to-write", 0)
        store.run(submit(submission(), open_jobs=9))
        assert store.run(census()).open_jobs == 1
        store.close()
