"""What the stores of files share: making entries durable, and telling what was left behind."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from pathlib import Path

from contract.errors import StorageError

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
"""The errors that mean that there is no room."""


def make_data_folder(folder: Path) -> None:
    """Make the data folder where it is not there, and write to it once. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        full = error.errno in FULL
        raise StorageError(f"the data folder {folder} cannot be written: {error.strerror}", full=full) from error


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make all files below a folder durable, and their names."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def seconds_since_write(path: Path) -> float:
    """Seconds since a file, or anything in a folder, was last written; 0 for what is being removed meanwhile."""
    try:
        return time.time() - max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:
        return 0.0
