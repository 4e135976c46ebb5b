"""What all that writes files shares: files that are there completely or not at all, durable entries, and telling what
was left behind."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import StorageError

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
"""The errors that mean that there is no room."""


TEMPORARY = ".part-"
"""How the names of files that are being written begin; a writer that was killed leaves them behind."""


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


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that is there completely, or as it was before, whatever dies meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _written(path, content) as temporary:
        temporary.replace(path)
        sync_folder(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write a file that is there completely or not at all, unless there is one of that name, which stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _written(path, content) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return
        sync_folder(path.parent)


@contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    """A durable file of that content beside `path`, removed if it is still there in the end."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def seconds_since_write(path: Path) -> float:
    """Seconds since a file, or anything in a folder, was last written; 0 for what is being removed meanwhile."""
    try:
        return time.time() - max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:
        return 0.0
