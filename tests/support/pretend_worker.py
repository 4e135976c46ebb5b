"""A worker that needs no model: it claims jobs as a real one does and answers them with a small picture or report."""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Callable
from typing import Self

from contract.announcements import Announcement, announce
from contract.card import Statistic
from contract.images import ImageStore, image_url
from contract.job_store import JobStore
from contract.jobs import JobProgress, JobRecord
from contract.payloads import CalibrationPayload, ComparisonPayload, EvaluationPayload, GenerationPayload
from contract.reports import EXTENSIONS, FILES, ReportStore, report_url
from contract.results import (
    Arm,
    CalibrationResult,
    ComparisonResult,
    EvaluationResult,
    GenerationResult,
    ImageFile,
    Result,
    Score,
)
from contract.transitions import Claimant, acknowledge_cancel, claim, renew, succeed
from tests.support.cards import card

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGM4oaGBFTEMLQkAgl1GAWqNFmsAAAAASUVORK5CYII="
)
"""An 8 by 8 PNG."""

HEARTBEAT_SECONDS = 2.0


class PretendWorker:
    """Works while the `with` block runs, and announces itself all the while if it has what to announce. While `hold` is
    set, a claimed job runs on until it is canceled."""

    def __init__(self, store: JobStore, images: ImageStore, announcement: Announcement | None = None) -> None:
        self.hold = threading.Event()
        self._store = store
        self._announcement = announcement
        self._announced = -math.inf
        self._images = images
        self._reports = ReportStore(images.folder.parent / "reports")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopped.wait(0.02):
            if self._announcement and time.monotonic() - self._announced > HEARTBEAT_SECONDS:
                self._announced = time.monotonic()
                self._store.run(announce(self._announcement))
            record = self._store.run(claim(["generate.tiny", "calibrate", "evaluate"], "pretend"))
            if record:
                self._answer(record, Claimant(record.id, record.attempt))

    def _answer(self, record: JobRecord, claimant: Claimant) -> None:
        progress = JobProgress(stage="denoise", step=1, steps=2)
        while self._store.run(renew(claimant, progress)) == "go":
            if not self.hold.is_set():
                self._store.run(succeed(claimant, self._result(record)))
                return
            if self._stopped.wait(0.05):
                return
        self._store.run(acknowledge_cancel(claimant))

    def _result(self, record: JobRecord) -> Result:
        results: dict[type, Callable[..., Result]] = {
            GenerationPayload: self._generation,
            ComparisonPayload: self._comparison,
            CalibrationPayload: _calibration,
            EvaluationPayload: self._evaluation,
        }
        return results[type(record.payload)](record.payload)

    def _generation(self, payload: GenerationPayload) -> GenerationResult:
        pictures = tuple(self._picture() for _ in range(payload.num_images))
        return GenerationResult(
            images=pictures, seed=payload.seed, seconds={"denoise": 0.5}, digest="a" * 64, score=None
        )

    def _comparison(self, payload: ComparisonPayload) -> ComparisonResult:
        arm = Arm(images=(self._picture(),), seconds={"denoise": 0.5}, resident_bytes=4_000_000, digest=None)
        floor = {"psnr": Statistic(mean=61.25, ci95=(60.5, 62.0), count=8)}
        score = Score(metrics={"psnr": (33.125,), "ssim": (None,)}, noise_floor=floor)
        return ComparisonResult(
            seed=payload.seed, reference=arm, variant=arm, differences=(self._picture(),), score=score
        )

    def _evaluation(self, payload: EvaluationPayload) -> EvaluationResult:
        """The first variant is measured, the others cannot be."""
        staged = self._reports.stage("pretend")
        for name in FILES:
            (staged / name).write_text(f"<title>{payload.limit} prompts</title>")
        report = self._reports.publish(staged)
        self._reports.link(card().digest, report)
        measured, *others = payload.variants
        figures = {"psnr": Statistic(mean=33.125, ci95=(32.5, 34.0), count=payload.limit)}
        floor = {"psnr": Statistic(mean=61.25, ci95=(60.5, 62.0), count=payload.limit)}
        return EvaluationResult(
            model=payload.model,
            report={form: report_url(report, form) for form in EXTENSIONS},
            variants={measured: dict.fromkeys(payload.prompt_sets, figures)},
            floors={"bfloat16": floor},
            failures=dict.fromkeys(others, "its files are damaged"),
        )

    def _picture(self) -> ImageFile:
        name = self._images.put(PICTURE, "png")
        sha256 = name.partition(".")[0]
        return ImageFile(sha256=sha256, url=image_url(name), width=8, height=8, size_bytes=len(PICTURE))


def _calibration(payload: CalibrationPayload) -> CalibrationResult:
    made = card(payload.model, payload.variant)
    return CalibrationResult(model=made.model, variant=made.variant, card=made)
