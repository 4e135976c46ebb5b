"""Reports: what an evaluation found, to read and to compute with. Whoever knows a report's id may read it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import FileResponse, Response

from app.errors import NotFound
from app.openapi import stored
from app.services import Shared
from contract.reports import MEDIA_TYPES

router = APIRouter(prefix="/v1/reports", tags=["reports"])

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""A report holds its styles, drawings and pictures itself, and runs nothing."""


@router.get(
    "/{name}",
    summary="Read a report",
    response_class=FileResponse,
    responses=stored(*MEDIA_TYPES.values()),
)
def get_report(name: str, services: Shared, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """A report, `<id>.html`, `.json` or `.md`. It never changes."""
    report, _, extension = name.partition(".")
    path = services.reports.find(report, f"report.{extension}")
    if path is None:
        raise NotFound("there is no such report")
    headers = {
        "ETag": f'"{name}"',
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if extension == "html":
        headers["Content-Security-Policy"] = POLICY
    if if_none_match and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=MEDIA_TYPES[extension], headers=headers)
