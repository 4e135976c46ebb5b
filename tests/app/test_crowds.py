"""Many clients, slow clients, and a gateway that stops while clients wait."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.settings import GatewaySettings
from contract.job_store import JobStore
from tests.support.gateway import GENERATION
from tests.support.service import Process, until
from tests.support.serving import serving
from tests.support.valkey import Valkey

DEADLINE = 2.0
HALVES = {
    "nothing": b"",
    "half a line": b"GET /heal",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    "half a body": b"POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{",
}


@pytest.fixture
def url(settings: GatewaySettings, valkey: Valkey, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("app.connections.RECEIVE_SECONDS", DEADLINE)
    with serving(settings, valkey.url) as url:
        yield url


def _connect(url: str) -> socket.socket:
    address = urlsplit(url)
    assert address.hostname and address.port
    return socket.create_connection((address.hostname, address.port), timeout=30)


@pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES)
def test_unfinished_requests_block_nobody_and_are_closed(url: str, sent: bytes) -> None:
    with ExitStack() as opened:
        silent = [opened.enter_context(_connect(url)) for _ in range(220)]
        start = time.monotonic()
        for connection in silent:
            connection.sendall(sent)
        for path in ("/healthz", "/v1/models"):
            assert httpx.get(url + path, timeout=30).status_code == 200
        answers = [_read_all(connection) for connection in silent]
        assert time.monotonic() - start < DEADLINE + 8
    assert {answer[:12] for answer in answers} == ({b"HTTP/1.1 408"} if sent and b"\r\n\r\n" not in sent else {b""})


def test_a_request_that_trickles_is_closed_too(url: str) -> None:
    with _connect(url) as connection:
        start = time.monotonic()
        try:
            while time.monotonic() - start < DEADLINE + 8:
                connection.sendall(b"a")
                time.sleep(0.1)
        except OSError:
            pass
        assert time.monotonic() - start < DEADLINE + 4


def test_a_second_request_has_its_own_deadline(url: str) -> None:
    with _connect(url) as connection:
        for _ in range(3):
            time.sleep(DEADLINE * 0.6)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b'"ok"' not in answer:
                answer += connection.recv(4096)
        connection.sendall(b"GET /hea")
        assert _read_all(connection).startswith(b"HTTP/1.1 408")


def test_a_long_answer_has_no_deadline(url: str) -> None:
    answer = httpx.post(f"{url}/v1/generations", json=GENERATION, headers={"Prefer": "wait=4"}, timeout=30)
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=4")


def test_what_is_not_http_is_refused_with_a_problem(url: str) -> None:
    with _connect(url) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        head, _, body = _read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["code"] == "bad-request"


def test_idle_connections_make_room(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.connections.MOST", 20)
    with ExitStack() as opened:
        for _ in range(60):
            opened.enter_context(_connect(url))
        assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200


def test_many_posts_at_once_are_accepted_or_told_when_to_return(url: str) -> None:
    answers = asyncio.run(_all_at_once(url, 300))
    statuses = Counter(answer["status"] for answer in answers)
    assert set(statuses) <= {202, 429, 503}
    assert statuses[202] == 20  # what make_settings admits
    for answer in answers:
        if answer["status"] != 202:
            assert answer["headers"]["content-type"] == "application/problem+json"
            assert int(answer["headers"]["retry-after"]) > 0
            assert answer["body"]["code"]


def test_a_crowd_is_told_to_return_and_health_still_answers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.middleware.crowd.MOST", 1)
    waiting = threading.Thread(
        target=lambda: httpx.post(f"{url}/v1/generations", json=GENERATION, headers={"Prefer": "wait=3"}, timeout=30)
    )
    waiting.start()
    time.sleep(1)
    answer = httpx.get(f"{url}/v1/models")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    assert [httpx.get(url + path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3
    waiting.join()
    assert httpx.get(f"{url}/v1/models").status_code == 200


def test_a_gateway_that_stops_leaves_nobody_waiting(settings: GatewaySettings, valkey: Valkey, store: JobStore) -> None:
    environment = {
        "FACSIMILE_UI": "false",
        "FACSIMILE_PORT": "0",
        "FACSIMILE_REDIS_URL": valkey.url,
        "FACSIMILE_DATA_DIR": str(settings.data_dir),
    }
    process = Process(["app", "gateway"], environment)
    line = until(lambda: [x for x in process.output.splitlines() if x.startswith("listening: ")], "an address")
    url = line[0].removeprefix("listening: ")
    until(lambda: _answers(url), "health")
    answers: list[httpx.Response] = []
    links = httpx.post(f"{url}/v1/generations", json=GENERATION).json()["links"]
    asked = [
        lambda: httpx.post(f"{url}/v1/generations", json=GENERATION, headers={"Prefer": "wait=60"}, timeout=60),
        lambda: httpx.post(f"{url}/v1/generations", json=GENERATION, headers={"Prefer": "wait=60"}, timeout=60),
        lambda: httpx.get(url + links["events"], timeout=60),
    ]
    clients = [threading.Thread(target=lambda ask=ask: answers.append(ask())) for ask in asked]
    for client in clients:
        client.start()
    time.sleep(2)
    start = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - start < 8
    for client in clients:
        client.join(30)
    assert sorted(answer.status_code for answer in answers) == [200, 202, 202]
    for answer in answers:
        if answer.status_code == 202:
            assert answer.json()["status"] == "queued"
        else:
            assert answer.text.rstrip().splitlines()[-1] == "retry: 2000"
    assert "Traceback" not in process.output


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def _read_all(connection: socket.socket) -> bytes:
    found = b""
    try:
        while piece := connection.recv(4096):
            found += piece
    except ConnectionResetError:
        pass
    return found


async def _all_at_once(url: str, count: int) -> list[dict[str, Any]]:
    address = urlsplit(url)
    body = json.dumps(GENERATION).encode()
    head = "POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    opened = [await asyncio.open_connection(address.hostname, address.port) for _ in range(count)]
    for _, writer in opened:
        writer.write(sent)
    texts = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in opened)), 60)
    for _, writer in opened:
        writer.close()
    return [_parsed(text) for text in texts]


def _parsed(text: bytes) -> dict[str, Any]:
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return {"status": int(first.split()[1]), "headers": headers, "body": json.loads(body)}
