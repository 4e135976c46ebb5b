"""Images: the bytes of a picture by its digest. Whoever knows a digest may read it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import FileResponse, Response

from app.errors import NotFound
from app.openapi import stored
from app.services import Shared
from contract.images import MEDIA_TYPES

router = APIRouter(prefix="/v1/images", tags=["images"])


@router.get(
    "/{name}",
    summary="Read a picture",
    response_class=FileResponse,
    responses=stored(*MEDIA_TYPES.values()),
)
def get_image(name: str, services: Shared, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """A picture, `<sha256>.png`, `.jpg` or `.webp`. It never changes."""
    path = services.images.find(name)
    if path is None:
        raise NotFound("there is no such picture")
    digest, _, extension = name.partition(".")
    headers = {
        "ETag": f'"{digest}"',
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if if_none_match and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=MEDIA_TYPES[extension], headers=headers)
