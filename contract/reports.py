"""Evaluation reports: folders `<folder>/<id>/` with a report as JSON, Markdown and HTML, complete or not there, never
changed; and for each variant's digest the latest report that measured it."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from pathlib import Path
from typing import Literal

from contract.errors import ReportStoreError
from contract.folders import FULL, TEMPORARY, replace_file, seconds_since_write, sync_folder, sync_tree

ReportForm = Literal["html", "json", "markdown"]
EXTENSIONS: dict[ReportForm, str] = {"html": "html", "json": "json", "markdown": "md"}
MEDIA_TYPES = {"html": "text/html", "json": "application/json", "md": "text/markdown"}
"""By extension."""

FILES = tuple(f"report.{extension}" for extension in MEDIA_TYPES)

_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def report_url(report: str, form: ReportForm) -> str:
    """The path that answers a report."""
    return f"/v1/reports/{report}.{EXTENSIONS[form]}"


class ReportStore:
    """The reports under one folder. A report's id is the first half of the digest of its report.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._staging = folder / "staging"
        self._links = folder / "variants"

    def stage(self, name: str) -> Path:
        """A new empty folder to write a report into, on the same file system as the published ones."""
        folder = self._staging / name
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise _unstored(error) from error
        return folder

    def publish(self, staged: Path) -> str:
        """Make a complete staged report visible and answer its id; publishing it again changes nothing.

        Raises ReportStoreError, with code `storage-full` when there is no room."""
        missing = [name for name in FILES if not (staged / name).is_file()]
        if missing:
            raise ReportStoreError(f"the report is not complete: {', '.join(missing)} is missing")
        report = hashlib.sha256((staged / "report.json").read_bytes()).hexdigest()[:32]
        try:
            if not (self.folder / report).exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                sync_tree(staged)
                staged.rename(self.folder / report)
                sync_folder(self.folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # not even published meanwhile by another worker
                raise _unstored(error) from error
        return report

    def find(self, report: str, name: str) -> Path | None:
        """One of a report's FILES, or None when there is none of that name."""
        if not _ID.fullmatch(report) or name not in FILES:
            return None
        path = self.folder / report / name
        return path if path.is_file() else None

    def link(self, digest: str, report: str) -> None:
        """Remember a published report as the latest of a variant's digest. Raises ReportStoreError."""
        if not _DIGEST.fullmatch(digest) or self.find(report, "report.json") is None:
            raise ReportStoreError(f"no report {report} to link to the variant {digest}")
        try:
            replace_file(self._links / digest, f"{report}\n".encode("ascii"))
        except OSError as error:
            raise _unstored(error) from error

    def of_variant(self, digest: str) -> str | None:
        """The id of the latest report that measured a variant of this digest, if it is still there."""
        if not _DIGEST.fullmatch(digest):
            return None
        try:
            report = (self._links / digest).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return report if self.find(report, "report.html") else None

    def sweep(self, older_than: float) -> int:
        """Remove what was left unfinished `older_than` seconds ago or earlier; answers how many."""
        unfinished = [*self._staging.glob("*"), *self._links.glob(f"{TEMPORARY}*")]
        stale = [path for path in unfinished if seconds_since_write(path) >= older_than]
        for path in stale:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return len(stale)


def _unstored(error: OSError) -> ReportStoreError:
    return ReportStoreError(f"the report could not be stored: {error.strerror}", full=error.errno in FULL)
