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
    return folder.joinpath("prelude.lua").read_text("utf-8") + folder.joinpath(f"{script}.lua").read_text("utf-8")
