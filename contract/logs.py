"""Logs: one JSON object a line, on standard error, with the request's and the job's id where there is one, and without
a word of anybody's prompt.

Prompts come near a log in three ways, and each is closed for all libraries at once. What a third party's logger or
warning says while a request or a job is at hand is withheld; only where it came from is told. So is the message of a
third party's exception. And what anything prints is a log line too (contract.output)."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

import structlog

OURS = ("app", "contract", "worker", "quant", "shapes")
"""Packages whose messages are ours, and hold no prompt."""

_NOISY = ("httpx", "httpcore", "PIL", "matplotlib", "fsspec", "urllib3")
"""Loggers whose INFO is of no use to an operator."""

_Raised = tuple[type[BaseException], BaseException, TracebackType | None]


def configure_logs(process: str, stream: TextIO | None = None) -> None:
    """Send the records of structlog, of the standard library and of warnings to the same place in the same shape."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_raised),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_Withholding())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.contextvars.bind_contextvars(process=process)


def adopt_loggers(*names: str) -> None:
    """Take away the handlers that libraries gave their own loggers, so that their records come to ours."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True


def people_at_hand() -> bool:
    """Whether this thread works on a request or a job, whose words are somebody's own."""
    bound = structlog.contextvars.get_contextvars()
    return "job" in bound or "request" in bound


class _Withholding(logging.Filter):
    """Passes a third party's record without its text, and once for each place that it comes from."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] in OURS or not people_at_hand():
            return True
        place = _place(record)
        if record.exc_info is None and place in self._told:
            return False
        self._told.add(place)
        record.msg, record.args = "a message at %s was left out: it may hold a prompt", (place,)
        return True


def _place(record: logging.LogRecord) -> str:
    """Where a message is from; of a warning, which place it warns of, and its kind."""
    if record.name == "py.warnings":
        return ": ".join(record.getMessage().split(": ", 2)[:2])
    return f"{record.filename}:{record.lineno}"


def _raised(exc_info: _Raised) -> str:
    """What was raised and from where, causes first, a line each."""
    return "\n".join(_lines(exc_info[1]))


def _lines(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _lines(cause)
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"{frame.filename}:{frame.lineno} {frame.name}"
    yield f"{type(error).__module__}.{type(error).__qualname__}: {_message(error)}"


def _message(error: BaseException) -> str:
    ours = type(error).__module__.partition(".")[0] in OURS or isinstance(error, OSError)
    return str(error) if ours or not people_at_hand() else "(left out: it may hold a prompt)"
