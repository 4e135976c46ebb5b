"""The HTTP server, and the line that says that it is ready."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import uvicorn

from app.application import create_app
from app.connections import Connection
from app.settings import GatewaySettings
from contract.errors import ContractError

Tell = Callable[[str], None]

_READY_SECONDS = 600.0


class PortTaken(ContractError):
    """The address cannot be listened on."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 takes any free one. Raises PortTaken, with the reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it, every answer waits 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"cannot listen on {host}:{port}: {error.strerror or error}; set FACSIMILE_PORT to another port"
        ) from error
    return listener


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: GatewaySettings, redis_url: str, listener: socket.socket) -> None:
    """Answer requests until told to stop."""
    server = make_server(settings, redis_url)
    gc.freeze()  # what is loaded by now lives as long as the process: looking through it again costs every tenth answer
    server.run(sockets=[listener])


class Server(uvicorn.Server):
    """Tells the application that it stops before it waits for open answers, so that these can end themselves."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, in order."""
        self.config.app.state.stopping.set()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def make_server(settings: GatewaySettings, redis_url: str) -> uvicorn.Server:
    """The server, not yet started."""
    return Server(
        uvicorn.Config(
            create_app(settings, redis_url),
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=20,
        )
    )


def announce_when_ready(url: str, tell: Tell) -> None:
    """In the background: say when pictures can be made, and how; or, after long, why they cannot."""
    threading.Thread(target=_announce, args=(url, tell), name="readiness", daemon=True).start()


def _announce(url: str, tell: Tell) -> None:
    until = time.monotonic() + _READY_SECONDS
    reason = "it does not answer"
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                tell(f"ready: {url}\n{_example(url)}")
                return
        except urllib.error.HTTPError as error:
            reason = str(json.load(error).get("reason"))
        except OSError:
            pass
        time.sleep(0.25)
    tell(f"not ready after {_READY_SECONDS:.0f} s: {reason}")


def _example(url: str) -> str:
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as answer:
            model = json.load(answer)["data"][0]["id"]
    except OSError:  # a key is asked for
        return f"try: curl -s {url}/v1/models -H 'Authorization: Bearer <key>'"
    body = json.dumps(
        {"model": model, "prompt": "a large yellow matte torus left of a large green matte ball, light floor"}
    )
    return f"try: curl -s {url}/v1/generations -H 'Prefer: wait=60' -H 'Content-Type: application/json' -d '{body}'"
