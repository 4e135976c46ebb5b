"""Why a job failed: from what was raised in it to a code and a sentence for its user, without paths of this machine."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from contract.errors import ContractError
from contract.folders import FULL
from contract.jobs import JobError

if TYPE_CHECKING:
    from quant.errors import QuantError

OUT_OF_MEMORY = JobError(
    code="out-of-memory", message="the worker's memory was not enough; ask for fewer or smaller pictures"
)
STORAGE_FULL = JobError(code="storage-full", message="there is no room for what the job writes")
STORAGE_UNUSABLE = JobError(code="storage-unusable", message="the worker cannot use a file that the job needs")

_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"`,;]+/)+[^\s/:'\"`,;]+/?")
_FOREIGN_ERRNO = re.compile(r"\b(?:code:|os error) (\d+)\b")
"""How safetensors tells what the operating system answered."""

_TORCH_WRITES = "inline_container.cc"
"""What torch names when it cannot write a file, without saying why."""


def failure_of(error: Exception) -> JobError | None:
    """The reason to record, or None for what nobody foresaw: a fault of ours."""
    if _no_memory(error):
        return OUT_OF_MEMORY
    if any(_errno(cause) in FULL for cause in _causes(error)):
        return STORAGE_FULL
    if isinstance(error, _known()):
        return JobError(code=error.code, message=without_paths(str(error)))
    return STORAGE_UNUSABLE if _errno(error) is not None else None


def without_paths(message: str) -> str:
    """A message whose absolute paths are cut down to their last part: clients do not see this machine's folders."""
    return _PATH.sub(lambda path: path[0].rstrip("/").rpartition("/")[2], message)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno or 0
    if type(error).__module__.startswith("safetensors"):
        found = _FOREIGN_ERRNO.search(str(error))
        return int(found[1]) if found else None
    return errno.EIO if isinstance(error, RuntimeError) and _TORCH_WRITES in str(error) else None


def _no_memory(error: Exception) -> bool:
    from quant.sampling.translation import no_memory

    return no_memory(error)


def _known() -> tuple[type[ContractError], type[QuantError]]:
    from quant.errors import QuantError

    return ContractError, QuantError
