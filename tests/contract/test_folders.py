"""Files that are there completely or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from contract.folders import create_file, replace_file


def test_a_reader_sees_the_old_file_or_the_new_one_and_nothing_between(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    replace_file(path, contents[0])
    done = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            seen.append(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(20):
        replace_file(path, contents[turn % 2])
    done.set()
    reader.join()
    assert set(seen) <= set(contents) and len(seen) > 0
    assert [each.name for each in path.parent.iterdir()] == ["file"], "no temporary file stays"


def test_a_file_that_is_there_is_not_created_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    create_file(path, b"first")
    create_file(path, b"second")
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [replace_file, create_file])
def test_a_disk_that_fills_up_leaves_nothing_behind(
    write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file", b"content")  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []
