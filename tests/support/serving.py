"""A gateway on a real port, in a thread of the test's own process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.server import address, bind, make_server
from app.settings import GatewaySettings

CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
"""Of browsers in tests: quiet, and at home in a container."""


@contextmanager
def serving(settings: GatewaySettings, redis_url: str) -> Iterator[str]:
    """The address of a gateway, as `python -m app gateway` would serve it."""
    listener = bind("127.0.0.1", 0)
    server = make_server(settings, redis_url)
    server.config.timeout_graceful_shutdown = 1
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield address(listener)
    finally:
        server.should_exit = True
        thread.join()
