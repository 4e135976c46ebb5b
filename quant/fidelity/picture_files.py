"""The pictures of an evaluation as files for other tools: `<folder>/<arm>/<prompt set>/00000.png`, the number being the
prompt's place in its set, and a `manifest.jsonl` beside them with file, id, prompt and seed of each."""

from __future__ import annotations

import io
import json
from pathlib import Path

from contract.folders import replace_file
from quant.fidelity.arm import Arm
from quant.fidelity.run import BATCH, Run, batches
from quant.sampling.generation import to_pictures
from quant.sampling.prompts import PromptSet


def export_batch(run: Run, arm: Arm, prompt_set: PromptSet, seed: int, place: int, folder: Path) -> None:
    """Writes the pictures of batch number `place` of a set that are not there yet, drawing them if need be."""
    batch = batches(prompt_set, seed)[place]
    target = folder / arm.name / prompt_set.name
    paths = [target / f"{place * BATCH + i:05}.png" for i in range(len(batch.prompts))]
    if all(path.is_file() for path in paths):
        return
    for path, picture in zip(paths, to_pictures(run.values(arm, batch).nan_to_num(0.0)), strict=True):
        file = io.BytesIO()
        picture.save(file, format="png")
        replace_file(path, file.getvalue())


def write_manifest(arm: Arm, prompt_set: PromptSet, seed: int, folder: Path) -> None:
    """Writes the manifest of a set's pictures."""
    rows: list[dict[str, object]] = []
    for batch in batches(prompt_set, seed):
        for prompt, each in zip(batch.prompts, arm.seeds(batch.seeds), strict=True):
            rows.append({"file": f"{len(rows):05}.png", "id": prompt.id, "prompt": prompt.text, "seed": each})
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    (folder / arm.name / prompt_set.name / "manifest.jsonl").write_text(lines, encoding="utf-8")
