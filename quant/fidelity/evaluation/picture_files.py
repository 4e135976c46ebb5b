"""The pictures of an evaluation as files for other tools: `<folder>/<arm>/<prompt set>/00000.png`, the number being the
prompt's place in its set, and a `manifest.jsonl` beside them with file, id, prompt and seed of each."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.folders import replace_file
from quant.fidelity.arm import Arm
from quant.fidelity.study import BATCH, Batch, Study
from quant.sampling.generation import to_pictures


@dataclass(frozen=True)
class PictureFiles:
    """The files of one arm's pictures of one prompt set."""

    study: Study
    folder: Path

    def write_batch(self, arm: Arm, place: int, batch: Batch) -> None:
        """Writes the pictures of the batch at a place that are not there yet, drawing them if need be."""
        paths = [self.folder / f"{place * BATCH + i:05}.png" for i in range(len(batch.prompts))]
        if all(path.is_file() for path in paths):
            return
        values = self.study.values(arm, batch).nan_to_num(0.0)
        for path, picture in zip(paths, to_pictures(values), strict=True):
            file = io.BytesIO()
            picture.save(file, format="png")
            replace_file(path, file.getvalue())

    def write_manifest(self, arm: Arm, cut: Sequence[Batch]) -> None:
        """Writes the manifest of all batches."""
        rows: list[dict[str, object]] = []
        for batch in cut:
            for prompt, seed in zip(batch.prompts, arm.seeds(batch.seeds), strict=True):
                rows.append({"file": f"{len(rows):05}.png", "id": prompt.id, "prompt": prompt.text, "seed": seed})
        lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (self.folder / "manifest.jsonl").write_text(lines, encoding="utf-8")
