from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.errors import ReportStoreError
from contract.reports import FILES, ReportStore, report_url

DIGEST = "0" * 64


@pytest.fixture
def reports(tmp_path: Path) -> ReportStore:
    return ReportStore(tmp_path / "reports")


def staged(reports: ReportStore, name: str = "job-1", text: str = "{}") -> Path:
    folder = reports.stage(name)
    for file in FILES:
        (folder / file).write_text(text)
    return folder


def test_a_report_is_published_once_under_its_digest(reports: ReportStore) -> None:
    report = reports.publish(staged(reports))
    assert report == hashlib.sha256(b"{}").hexdigest()[:32]
    paths = [reports.find(report, name) for name in FILES]
    assert all(path and path.read_text() == "{}" for path in paths)
    before = [path.stat().st_ino for path in paths if path]
    again = staged(reports)
    (again / "report.html").write_text("rendered otherwise")
    assert reports.publish(again) == report
    assert [path.stat().st_ino for path in paths if path] == before
    assert reports.publish(staged(reports, "job-2", "[]")) != report
    assert report_url(report, "markdown") == f"/v1/reports/{report}.md"


def test_an_incomplete_report_is_refused(reports: ReportStore) -> None:
    folder = staged(reports)
    (folder / "report.md").unlink()
    with pytest.raises(ReportStoreError, match=r"report\.md"):
        reports.publish(folder)
    assert not list(reports.folder.glob("[0-9a-f]*"))


def test_of_two_publishers_of_the_same_report_both_are_answered(reports: ReportStore) -> None:
    folders = [staged(reports, f"job-{i}") for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(reports.publish, folders))
    assert len(ids) == 1
    assert reports.find(ids.pop(), "report.json")


@pytest.mark.parametrize(
    "report", ["", "..", ".", "variants", "staging", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"]
)
def test_other_ids_find_nothing(reports: ReportStore, report: str) -> None:
    reports.link(DIGEST, reports.publish(staged(reports)))
    for name in FILES:
        assert reports.find(report, name) is None


@pytest.mark.parametrize(
    "name", ["", "..", "report.txt", "../report.json", "report.json/", "/etc/passwd", "REPORT.JSON"]
)
def test_other_names_find_nothing(reports: ReportStore, name: str) -> None:
    assert reports.find(reports.publish(staged(reports)), name) is None


def test_the_latest_report_of_a_variant_is_linked(reports: ReportStore) -> None:
    assert reports.of_variant(DIGEST) is None
    first, second = (reports.publish(staged(reports, name, name)) for name in ("first", "second"))
    for report in (first, second, first):
        reports.link(DIGEST, report)
        assert reports.of_variant(DIGEST) == report
    assert reports.of_variant("1" * 64) is None
    assert [path.name for path in (reports.folder / "variants").iterdir()] == [DIGEST]


def test_a_link_leads_somewhere_or_is_none(reports: ReportStore) -> None:
    report = reports.publish(staged(reports))
    reports.link(DIGEST, report)
    for text in ("", "../../secret", "\ud800".encode("utf-8", "surrogatepass"), "0" * 32):
        path = reports.folder / "variants" / DIGEST
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert reports.of_variant(DIGEST) is None
    reports.link(DIGEST, report)
    for file in (reports.folder / report).iterdir():
        file.unlink()
    assert reports.of_variant(DIGEST) is None


@pytest.mark.parametrize("digest", ["", "..", "../variants/x", "0" * 63, "G" * 64])
def test_other_digests_are_refused(reports: ReportStore, digest: str) -> None:
    report = reports.publish(staged(reports))
    with pytest.raises(ReportStoreError):
        reports.link(digest, report)
    assert reports.of_variant(digest) is None


def test_only_a_published_report_is_linked(reports: ReportStore) -> None:
    for report in ("0" * 32, "..", ""):
        with pytest.raises(ReportStoreError):
            reports.link(DIGEST, report)


def test_an_unusable_folder_is_not_called_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReportStoreError) as unusable:
        ReportStore(tmp_path / "file").stage("job")
    assert unusable.value.code == "storage-unusable"


def test_only_stale_leftovers_are_swept(reports: ReportStore) -> None:
    assert reports.sweep(0) == 0
    report = reports.publish(staged(reports))
    reports.link(DIGEST, report)
    stale, fresh = staged(reports, "stale"), staged(reports, "fresh")
    part = reports.folder / "variants" / ".part-x"
    part.write_bytes(b"")
    for path in (stale, part, reports.folder / report, reports.folder / "variants" / DIGEST, *stale.iterdir()):
        os.utime(path, (1, 1))
    assert reports.sweep(3600) == 2
    assert fresh.exists()
    assert not stale.exists()
    assert reports.of_variant(DIGEST) == report
