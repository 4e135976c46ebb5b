from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from contract.errors import ImageStoreError
from contract.images import ImageStore


def test_a_picture_is_stored_once_under_its_digest(tmp_path: Path) -> None:
    images = ImageStore(tmp_path)
    name = images.put(b"picture", "jpeg")
    first = images.find(name)
    assert first is not None
    assert first.read_bytes() == b"picture"
    assert name.endswith(".jpg")
    inode = first.stat().st_ino
    assert images.put(b"picture", "jpeg") == name
    assert first.stat().st_ino == inode
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name]


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "A" * 64 + ".png", "0" * 64 + ".gif", "0" * 64 + ".png"]
)
def test_other_names_find_nothing(tmp_path: Path, name: str) -> None:
    assert ImageStore(tmp_path).find(name) is None


def _put_beyond_the_limit(folder: Path, answers: multiprocessing.SimpleQueue[str]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        ImageStore(folder).put(b"x" * 5000, "png")
    except ImageStoreError as error:
        answers.put(error.code)
    else:
        answers.put("stored")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    process = context.Process(target=_put_beyond_the_limit, args=(tmp_path, answers))
    process.start()
    assert answers.get() == "storage-full"
    process.join()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_unusable_folder_is_not_called_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageStoreError) as unusable:
        ImageStore(tmp_path / "file").put(b"picture", "png")
    assert unusable.value.code == "storage-unusable"


def test_only_stale_temporaries_are_swept(tmp_path: Path) -> None:
    images = ImageStore(tmp_path)
    kept = images.find(images.put(b"picture", "png"))
    stale, fresh = tmp_path / "ab" / ".part-stale", tmp_path / "ab" / ".part-fresh"
    stale.parent.mkdir(exist_ok=True)
    stale.write_bytes(b"")
    fresh.write_bytes(b"")
    os.utime(stale, (1, 1))
    assert images.sweep(3600) == 1
    assert kept is not None
    assert kept.exists()
    assert fresh.exists()
    assert not stale.exists()
