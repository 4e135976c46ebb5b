"""Which names the service answers to, and which pages may make it work.

Without API keys anybody who reaches the service may use it. A web page that a user of this machine visits reaches it
too: by DNS rebinding, with its own name in Host, or by a form or a fetch, with its own in Origin. Both are refused."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import problem_answer
from app.middleware.crowd import ALWAYS
from app.settings import GatewaySettings

_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
_SAFE = ("GET", "HEAD", "OPTIONS")


class Hosts:
    """ASGI middleware. With keys only the names in `allowed_hosts` are asked for, and only if there are any."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._names = {name.lower() for name in (*settings.allowed_hosts, settings.host)}
        self._origins = {origin.lower() for origin in settings.cors_origins}
        self._keyless = settings.api_keys_file is None
        self._asks = bool(settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        code, reason = self._refusal(scope) if scope["type"] in ("http", "websocket") else ("", "")
        if not code:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await problem_answer(code, reason)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[str, str]:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        asks = self._keyless or (self._asks and scope["path"] not in ALWAYS)  # which Prometheus asks by another name
        if asks and not self._known(host):
            return "unknown-host", (
                "this service does not answer to that name; ask for localhost or 127.0.0.1, "
                "or add the name to FACSIMILE_ALLOWED_HOSTS"
            )
        origin = headers.get("origin", "").lower()
        unsafe = scope.get("method") not in _SAFE or scope["type"] == "websocket"
        if self._keyless and origin and unsafe and urlsplit(origin).netloc != host and origin not in self._origins:
            return "foreign-origin", (
                "pages of other sites may not use a service without API keys; "
                "add their origin to FACSIMILE_CORS_ORIGINS if they may"
            )
        return "", ""

    def _known(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        name = match[1].strip("[]") if match else ""
        return name in self._names or name == "localhost" or name.endswith(".localhost") or _loopback(name)


def _loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
