"""Pictures as content-addressed files: `<folder>/ab/<sha256>.<extension>`, complete or not there, never changed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from contract.errors import ImageStoreError
from contract.folders import FULL, TEMPORARY, create_file, seconds_since_write
from contract.payloads import OutputFormat

EXTENSIONS: dict[OutputFormat, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
MEDIA_TYPES = {extension: f"image/{form}" for form, extension in EXTENSIONS.items()}

_NAME = re.compile(r"([0-9a-f]{64})\.(png|jpg|webp)")


def image_url(name: str) -> str:
    """The path that answers a stored picture's bytes."""
    return f"/v1/images/{name}"


class ImageStore:
    """The pictures under one folder. A picture's name is `<sha256>.<extension>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, picture: bytes, form: OutputFormat) -> str:
        """Store an encoded picture and answer its name; storing it again changes nothing.

        Raises ImageStoreError, with code `storage-full` when there is no room; nothing is left behind then."""
        name = f"{hashlib.sha256(picture).hexdigest()}.{EXTENSIONS[form]}"
        target = self.folder / name[:2] / name
        try:
            if not target.exists():
                create_file(target, picture)
        except OSError as error:
            raise ImageStoreError(
                f"the picture could not be stored: {error.strerror}", full=error.errno in FULL
            ) from error
        return name

    def find(self, name: str) -> Path | None:
        """The file of a picture, or None when there is none of that name."""
        if not _NAME.fullmatch(name):
            return None
        path = self.folder / name[:2] / name
        return path if path.is_file() else None

    def sweep(self, older_than: float) -> int:
        """Remove temporary files that were left `older_than` seconds ago or earlier; answers how many."""
        temporary = self.folder.glob(f"??/{TEMPORARY}*")
        stale = [path for path in temporary if seconds_since_write(path) >= older_than]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)
