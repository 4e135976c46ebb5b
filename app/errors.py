"""Errors as RFC 9457 problems. STATUS is the one table from an error's code to its HTTP status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from contract.errors import ContractError
from contract.faults import sentence

STATUS: Mapping[str, HTTPStatus] = {
    "malformed-json": HTTPStatus.BAD_REQUEST,
    "bad-request": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "foreign-origin": HTTPStatus.FORBIDDEN,
    "not-found": HTTPStatus.NOT_FOUND,
    "job-not-found": HTTPStatus.NOT_FOUND,
    "method-not-allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "request-timeout": HTTPStatus.REQUEST_TIMEOUT,
    "variant-exists": HTTPStatus.CONFLICT,
    "unknown-version": HTTPStatus.CONFLICT,
    "job-lost": HTTPStatus.GONE,
    "body-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "not-json": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "unknown-host": HTTPStatus.MISDIRECTED_REQUEST,
    "invalid-request": HTTPStatus.UNPROCESSABLE_ENTITY,
    "idempotency-key-reused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "queue-full": HTTPStatus.TOO_MANY_REQUESTS,
    "too-many-streams": HTTPStatus.TOO_MANY_REQUESTS,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
    "variant-unusable": HTTPStatus.INTERNAL_SERVER_ERROR,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "broker-unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "broker-full": HTTPStatus.SERVICE_UNAVAILABLE,
    "no-worker": HTTPStatus.SERVICE_UNAVAILABLE,
}
RETRY_AFTER: Mapping[str, int] = {
    "queue-full": 5,
    "too-many-streams": 5,
    "overloaded": 1,
    "broker-unavailable": 2,
    "broker-full": 60,
    "no-worker": 5,
}
"""Seconds that a client is asked to wait before it repeats a request that met this; an error may know better."""

_BY_STATUS = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "not-json",
}
_TOO_LARGE = "a body may have 64 KiB; for calibrations and the web page 1 MiB"
_MAX_FAULTS = 20
_log = structlog.get_logger(__name__)


class Fault(BaseModel):
    """One thing that is wrong with a request: where, and what. What was sent is never repeated."""

    loc: tuple[str, ...]
    msg: str

    def __str__(self) -> str:
        place = ".".join(self.loc[1:] if self.loc[0] == "body" else self.loc)
        return f"{place}: {self.msg}" if place else self.msg


class Problem(BaseModel):
    """An error's body."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[Fault, ...] = ()


class InvalidRequest(ContractError):
    """A request that cannot be accepted, with its faults."""

    code = "invalid-request"

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class NotFound(ContractError):
    """There is no such thing."""

    code = "not-found"


class Unauthorized(ContractError):
    """No valid API key."""

    code = "unauthorized"


class Forbidden(ContractError):
    """The key's role does not allow it."""

    code = "forbidden"


class NotJson(ContractError):
    """A body is there, and not sent as JSON."""

    code = "not-json"


class TooManyStreams(ContractError):
    """As many clients hang on as may."""

    code = "too-many-streams"


class NoWorker(ContractError):
    """No worker that could do it is running."""

    code = "no-worker"


class NothingLeft(Exception):
    """A stream of events was asked for after its end: 204, the one answer after which browsers do not come back."""


def code_of_status(status: int) -> str:
    """The code of an error of which only the status is known."""
    return _BY_STATUS.get(status, "bad-request" if status < 500 else "internal")


def problem_answer(
    code: str, detail: str, faults: Sequence[Fault] = (), retry_after: int | None = None
) -> JSONResponse:
    """The answer to an error."""
    status = STATUS[code]
    detail = _TOO_LARGE if code == "body-too-large" else detail  # the library that refuses says no number
    problem = Problem(
        type=f"urn:facsimile:problem:{code}",
        title=status.phrase,
        status=int(status),
        detail=detail,
        code=code,
        errors=tuple(faults),
    )
    headers = {"Retry-After": str(retry_after or RETRY_AFTER[code])} if code in RETRY_AFTER else {}
    if code == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        problem.model_dump(), status_code=int(status), headers=headers, media_type="application/problem+json"
    )


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error as a problem."""
    app.add_exception_handler(ContractError, _contract_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(NothingLeft, _nothing_left)


async def _contract_error(request: Request, error: Exception) -> JSONResponse:
    code = getattr(error, "code", "internal")
    faults = error.faults if isinstance(error, InvalidRequest) else ()
    retry_after = getattr(error, "retry_after", None)
    return problem_answer(code if code in STATUS else "internal", str(error), faults, retry_after)


async def _nothing_left(request: Request, error: Exception) -> Response:
    return Response(status_code=204)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    faults = error.errors()[:_MAX_FAULTS] if isinstance(error, RequestValidationError) else []
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem_answer("malformed-json", "the body is not JSON")
    body = error.body if isinstance(error, RequestValidationError) else None
    clean = [Fault(loc=_place(fault, body), msg=_clean(sentence(fault))) for fault in faults]
    return await _contract_error(request, InvalidRequest(clean))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return problem_answer("internal", STATUS["internal"].phrase)
    if error.status_code == 400 and "json" in request.headers.get("content-type", ""):
        return problem_answer("malformed-json", "the body is not JSON")  # nor text: it cannot even be decoded
    answer = problem_answer(code_of_status(error.status_code), str(error.detail))
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_methods_at(request))
    return answer


def _methods_at(request: Request) -> list[str]:
    """The methods that a path has, of all routes together: each route knows its own only."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    found = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] == Match.FULL for route in routes)
    ]
    return ["HEAD", *found] if "GET" in found else found


def unexpected(error: Exception) -> JSONResponse:
    """The answer to a defect, which is logged."""
    _log.exception("request failed", exc_info=error)
    return problem_answer("internal", "the gateway failed; its log has the details")


def _place(fault: Mapping[str, Any], body: Any) -> tuple[str, ...]:
    """Where in the request a fault is. pydantic also names the kinds that it took parts of the body for: left out."""
    source, *parts = fault["loc"]
    if source != "body":
        return tuple(_clean(part) for part in fault["loc"])
    place, missing = [source], parts[-1:] if fault["type"] == "missing" else []
    for part in parts:
        if (isinstance(body, dict) and part in body) or (isinstance(body, list) and isinstance(part, int)):
            place.append(_clean(part))
            body = body[part]
    return (*place, *(_clean(part) for part in missing))


def _clean(text: object) -> str:
    return str(text).encode("utf-8", "replace").decode("utf-8")[:200]
