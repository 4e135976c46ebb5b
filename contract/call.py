"""The Lua scripts of contract/scripts, which alone change a job's state, and the calls that run them: typed arguments
in, typed answer out.

A call is the same object for the blocking and for the asynchronous client (contract.job_store), so that neither holds
any logic. `now` is the server's clock unless given."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")

PREFIX = "facsimile:"

_THROUGH_FULL_MEMORY = "#!lua flags=allow-oom\n"
"""First line of scripts that a broker runs even when its memory is full: all but those that only new work needs."""

_NEW_WORK = frozenset({"submit", "probe"})


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One run of a script: its name, its named arguments, and how its reply is read."""

    script: str
    arguments: dict[str, Any]
    read: Callable[[Any], Answer]

    def encoded(self) -> str:
        """The arguments as the script takes them."""
        return json.dumps({"now": 0.0, **self.arguments}, allow_nan=False)


@cache
def source(script: str) -> str:
    """The text of a script, its shared part first."""
    folder = files("contract").joinpath("scripts")
    head = "" if script in _NEW_WORK else _THROUGH_FULL_MEMORY
    return head + "".join(folder.joinpath(f"{name}.lua").read_text("utf-8") for name in ("prelude", script))
