"""The API's own page: Swagger UI from an installed package, so that it needs no network and runs no foreign script."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response

from app.errors import NotFound
from app.openapi import TITLE

router = APIRouter(prefix="/docs", include_in_schema=False)

_PACKAGE = "fastapi_offline"
"""It ships Swagger UI's files; nothing else of it is used."""

_ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)


@router.get("")
def show_documentation() -> HTMLResponse:
    """Every route, to read and to try."""
    script, style, icon = (f"/docs/{name}?v={version(_PACKAGE)}" for name in _ASSETS)
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=TITLE,
        swagger_js_url=script,
        swagger_css_url=style,
        swagger_favicon_url=icon,
        swagger_ui_parameters={"validatorUrl": None},  # else a foreign service is asked about the schema
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


@router.get("/{name}")
def get_asset(name: str) -> Response:
    """A script, a style or an icon of the page."""
    if name not in _ASSETS:
        raise NotFound("there is no such file")
    path = str(files(_PACKAGE).joinpath("static", name))
    return FileResponse(path, headers={"Cache-Control": "public, max-age=31536000, immutable"})
