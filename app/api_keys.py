"""API keys: who may use /v1, what for, and whose a job is. Without a file of keys everyone on this machine is one user.

A line of the file is a comment (`# ...`), a named key, or a key in plain text, as 0.1.0 wrote them, which may do all:

    # name    role        sha256 of the key    optional last day
    phone     user        9f86d081...          expires=2027-06-30
    ci        calibrator  60303ae2...

`python -m app key NAME` makes such a line. The file is read again when it changes."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Self

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.errors import Forbidden, Unauthorized
from contract.errors import ContractError
from contract.role import Role

LEAST_CHARACTERS = 16
"""Of a key in plain text: shorter ones can be guessed."""

_LINE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]{0,31}) (?P<role>[a-z]+) (?P<digest>[0-9a-f]{64})(?: expires=(?P<day>\S+))?"
)
_log = structlog.get_logger(__name__)
_bearer = HTTPBearer(auto_error=False, description="A key of FACSIMILE_API_KEYS_FILE")


class ApiKeysError(ContractError):
    """The file of keys cannot be used."""


@dataclass(frozen=True)
class ApiKey:
    """A key, by its digest. `owner` names its holder without revealing it: jobs belong to that name."""

    owner: str
    role: Role
    digest: str
    last_day: date | None = None

    def require(self, role: Role) -> None:
        """Raises Forbidden unless the key has this role or a higher one."""
        if self.role < role:
            raise Forbidden(f"this key has the role {self.role.name.lower()}; this asks for {role.name.lower()}")


EVERYONE = ApiKey(owner="", role=Role.ADMIN, digest="")
"""Of a service without keys."""


class ApiKeys:
    """The keys of a file; None: no key is asked for. What is wrong with a file is an error at the start; later, a file
    that cannot be used leaves the keys as they were, and the log says so."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[ApiKey, ...] = ()

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """The keys of a file. Raises ApiKeysError, naming the line, when it is unreadable, malformed or empty."""
        keys = cls(path)
        if path is not None:
            keys._stamp = _stamp(path)
            keys._keys = read_keys(path)
        return keys

    @property
    def asked_for(self) -> bool:
        """Whether a key is needed."""
        return self._path is not None

    def holder(self, offered: str | None) -> ApiKey:
        """The key that a client offers. Raises Unauthorized for none, a wrong one, and one that has expired."""
        if self._path is None:
            return EVERYONE
        self._read_again(self._path)
        digest = digest_of(offered or "")
        found = [key for key in self._keys if secrets.compare_digest(key.digest, digest)]
        if offered is None or not found:
            raise Unauthorized("send a valid key as `Authorization: Bearer <key>`")
        if found[0].last_day and datetime.now(UTC).date() > found[0].last_day:
            raise Unauthorized(f"this key expired on {found[0].last_day}")
        return found[0]

    def _read_again(self, path: Path) -> None:
        stamp = _stamp(path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(path)
            _log.info("keys read again", keys=len(self._keys))
        except ApiKeysError as error:
            _log.error("keys stay as they were", error=str(error))


def digest_of(key: str) -> str:
    """What the file holds in a key's place: its sha256, 64 hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file. Raises ApiKeysError."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ApiKeysError(f"FACSIMILE_API_KEYS_FILE {path} cannot be read: {reason}") from error
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, start=1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        key = parse_line(written, f"FACSIMILE_API_KEYS_FILE {path}, line {number}")
        if key.owner in keys:
            raise ApiKeysError(f"FACSIMILE_API_KEYS_FILE {path}, line {number}: this key or name is there already")
        keys[key.owner] = key
    if not keys:
        raise ApiKeysError(f"FACSIMILE_API_KEYS_FILE {path} holds no key")
    return tuple(keys.values())


def parse_line(line: str, place: str) -> ApiKey:
    """The key of a line that is no comment. Raises ApiKeysError, naming the place."""
    words = line.split()
    if len(words) == 1:
        if len(words[0]) < LEAST_CHARACTERS:
            raise ApiKeysError(f"{place}: a key has at least {LEAST_CHARACTERS} characters")
        digest = digest_of(words[0])
        return ApiKey(owner=digest[:16], role=Role.ADMIN, digest=digest)
    roles = {each.name.lower(): each for each in Role}
    found = _LINE.fullmatch(" ".join(words))
    day = _day(found["day"]) if found else None
    if not found or found["role"] not in roles or (found["day"] and day is None):
        raise ApiKeysError(
            f"{place}: a line is a key, or `name role sha256 [expires=YYYY-MM-DD]` with a name of lower-case letters, "
            f"digits and hyphens, and a role of {', '.join(roles)}"
        )
    return ApiKey(owner=f"key:{found['name']}", role=roles[found["role"]], digest=found["digest"], last_day=day)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


async def holder(  # FastAPI would call a plain function in a thread
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None
) -> ApiKey:
    """Who sends a request. Raises Unauthorized."""
    keys: ApiKeys = request.app.state.services.keys
    return keys.holder(credentials.credentials if credentials else None)


Holder = Annotated[ApiKey, Depends(holder)]


async def authorized(key: Holder) -> str:
    """Whose a request is: what every route of /v1 depends on. Raises Unauthorized."""
    return key.owner


Owner = Annotated[str, Depends(authorized)]
