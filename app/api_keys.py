"""API keys: who may use /v1, and whose a job is. Without a file of keys everyone on this machine is one user."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.errors import Unauthorized
from contract.errors import ContractError

_bearer = HTTPBearer(auto_error=False, description="One line of FACSIMILE_API_KEYS_FILE")


class ApiKeysError(ContractError):
    """The file of keys cannot be used."""


@dataclass(frozen=True)
class ApiKeys:
    """The digests of the keys; None: no key is asked for."""

    digests: tuple[str, ...] | None

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Read a file with one key per line. Raises ApiKeysError when it is unreadable or holds none."""
        if path is None:
            return cls(None)
        try:
            keys = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ApiKeysError(f"FACSIMILE_API_KEYS_FILE {path} cannot be read: {error}") from error
        if not keys:
            raise ApiKeysError(f"FACSIMILE_API_KEYS_FILE {path} holds no key")
        return cls(tuple(_digest(key) for key in keys))

    def owner(self, key: str | None) -> str:
        """Who a key belongs to, as a name that does not reveal it. Raises Unauthorized."""
        if self.digests is None:
            return ""
        offered = _digest(key or "")
        found = [digest for digest in self.digests if secrets.compare_digest(digest, offered)]
        if key is None or not found:
            raise Unauthorized("send a valid key as `Authorization: Bearer <key>`")
        return found[0][:16]


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


async def authorized(  # FastAPI would call a plain function in a thread
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None
) -> str:
    """Who sends a request: what every route of /v1 depends on. Raises Unauthorized."""
    keys: ApiKeys = request.app.state.services.keys
    return keys.owner(credentials.credentials if credentials else None)


Owner = Annotated[str, Depends(authorized)]
