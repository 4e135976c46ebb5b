"""Folders that results go to, tried before the work."""

from __future__ import annotations

import tempfile
from pathlib import Path

from quant.errors import OutputError


def make_writable(folder: Path) -> Path:
    """Makes the folder where it is not there, and writes a file in it that goes again. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
            probe.flush()
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be written: {error.strerror}") from error
    return folder
