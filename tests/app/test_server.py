"""The server on a real port: what clients meet below HTTP."""

from __future__ import annotations

import asyncio
import http.client
import socket
import statistics
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from app.server import bind
from app.settings import GatewaySettings
from contract.job_store import JobStore
from tests.support.serving import serving
from tests.support.valkey import Valkey


@pytest.fixture
def url(settings: GatewaySettings, valkey: Valkey, store: JobStore) -> Iterator[str]:
    with serving(settings, valkey.url) as url:
        yield url


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_accepted_sockets_send_at_once(host: str) -> None:
    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sock = writer.get_extra_info("socket")
            found.set_result(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = bind(host, 0)
        async with await asyncio.start_server(note, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            option = await asyncio.wait_for(found, 10)
            writer.close()
        return option

    try:
        assert asyncio.run(accepted())
    except OSError:
        if host != "::1":
            raise
        pytest.skip("this machine has no IPv6")


def test_answers_on_a_kept_connection_do_not_wait_for_nagle(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    seconds = []
    for _ in range(21):
        start = time.perf_counter()
        connection.request("GET", "/v1/generations")
        assert len(connection.getresponse().read()) > 0
        seconds.append(time.perf_counter() - start)
    connection.close()
    assert statistics.median(seconds) < 0.02
