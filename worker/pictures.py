"""Pictures on their way to the store: encoded, and marked with how they were made."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from PIL import Image

from contract.images import ImageStore, image_url
from contract.payloads import OutputFormat
from contract.results import ImageFile

_IMAGE_DESCRIPTION = 0x010E
_SOFTWARE = 0x0131


@dataclass(frozen=True)
class Provenance:
    """What a picture says about itself. Prompts are people's own and are left out."""

    model: str
    variant: str
    digest: str | None
    seed: int


def store_pictures(
    images: ImageStore, pictures: Sequence[Image.Image], form: OutputFormat, provenance: Provenance
) -> tuple[ImageFile, ...]:
    """Encode and store pictures, in order. Raises ImageStoreError."""
    return tuple(_store(images, picture, form, provenance, index) for index, picture in enumerate(pictures))


def _store(
    images: ImageStore, picture: Image.Image, form: OutputFormat, provenance: Provenance, index: int
) -> ImageFile:
    encoded = encode(picture, form, {**asdict(provenance), "index": index})
    name = images.put(encoded, form)
    return ImageFile(
        sha256=name.partition(".")[0],
        url=image_url(name),
        width=picture.width,
        height=picture.height,
        size_bytes=len(encoded),
    )


def encode(picture: Image.Image, form: OutputFormat, description: dict[str, object]) -> bytes:
    """A picture's file, with the description as JSON in its EXIF part. The same input gives the same bytes."""
    exif = Image.Exif()
    exif[_SOFTWARE] = "facsimile"
    exif[_IMAGE_DESCRIPTION] = json.dumps(description, sort_keys=True)
    file = io.BytesIO()
    picture.save(file, format=form.upper(), exif=exif, quality=95)
    return file.getvalue()
