"""The journal: a calibration that was interrupted goes on, and gives the same checkpoint."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contract.catalogue import ModelDescription, read_models
from contract.recipe import Recipe
from quant.calibration.journal import Journal, sweep
from quant.calibration.tuning.trainer import Trainer
from quant.errors import CalibrationDiverged
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.quantization.job import QuantizationJob
from quant.quantization.quantize import quantize
from quant.sampling.prompts import prompts_from_texts
from tests.support.toy_bench import KEPT
from tests.support.toy_model import PROMPTS, save_toy_model

KEPT_LAYERS = (*KEPT[:2], "up_blocks.*", "down_blocks.1.*")
RECIPE: dict[str, Any] = {
    "method": "tfmq",
    "weight_bits": 4,
    "activation_bits": 6,
    "keep_float": KEPT_LAYERS,
    "calibration": {"num_prompts": 4, "num_inference_steps": 4, "guidance_scale": 2.0},
    "stages": {
        "time_path": {"kind": "tiar", "iterations": 20},
        "inputs": {"kind": "all", "prompts": 4},
        "rounding": {"kind": "brecq", "iterations": 6, "batch": 8},
        "ranges": {"kind": "progressive", "prompts": 4},
        "fine_tuning": {
            "kind": "serial_to_parallel", "rounds": 3, "prompts": 2, "batch": 4, "feature_weight": 0.1,
            "freezing": "oscillation", "validation_prompts": 2,
        },
        "output_correction": {"kind": "ptqd", "prompts": 2},
    },
}  # fmt: skip


class Interrupted(Exception):
    """As if the process had been killed."""


@dataclass(frozen=True)
class Toy:
    """The toy model on disk, and the digest of its checkpoint by an uninterrupted run with its pieces' names."""

    description: ModelDescription
    digest: str
    pieces: tuple[str, ...]


def _job(description: ModelDescription, **changed: Any) -> QuantizationJob:
    return QuantizationJob(
        model="toy",
        description=description,
        recipe=Recipe.model_validate(RECIPE | changed),
        variant="toy",
        calibration=prompts_from_texts(list(PROMPTS[:4])),
        held_out=prompts_from_texts(list(PROMPTS[4:6])),
        prompt_set="own",
    )


def _silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Reports nothing."""


def _interrupt(stage: str, at: int) -> Callable[..., None]:
    """Raises the `at`-th time that a stage of that name reports."""
    seen = []

    def on_progress(name: str, *_: Any) -> None:
        seen.extend([name] if name.startswith(stage) else [])
        if len(seen) == at:
            raise Interrupted

    return on_progress


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("journal")
    description = read_models(save_toy_model(folder))["toy"]
    names: list[str] = []
    once = Journal.once

    def note(self: Journal, piece: str, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        names.append(piece)
        return once(self, piece, work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "once", note)
        card = quantize(_job(description), folder / "whole", _silent)
    return Toy(description, card.digest, tuple(names))


def _pieces(journal: Path) -> set[str]:
    return {path.stem for path in journal.rglob("*.safetensors")}


@pytest.mark.parametrize(
    ("stage", "at"),
    [
        ("trajectories", 2),
        ("time path", 1),
        ("brecq", 2),
        ("progressive ranges", 3),
        ("fine-tuning, states of round 2", 2),
        ("fine-tuning, round 2", 1),
        ("output correction", 2),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_checkpoint(toy: Toy, tmp_path: Path, stage: str, at: int) -> None:
    journal = tmp_path / "journal"
    with pytest.raises(Interrupted):
        quantize(_job(toy.description), tmp_path / "half", _interrupt(stage, at), journal)
    assert _pieces(journal) or stage == "trajectories"
    again: list[str] = []
    card = quantize(_job(toy.description), tmp_path / "out", lambda name, *_: again.append(name), journal)
    assert card.digest == toy.digest
    assert stage == "trajectories" or "trajectories" not in again
    assert not _pieces(journal), "a finished run leaves nothing behind"


def test_a_run_with_a_journal_is_the_run_without(toy: Toy, tmp_path: Path) -> None:
    assert quantize(_job(toy.description), tmp_path / "out", _silent, tmp_path / "journal").digest == toy.digest


@pytest.mark.parametrize(
    ("piece", "damage"),
    [("trajectories", None), ("brecq-0001", b"\xff" * 40), ("ranges-progressive", b""), ("fine-tuning", None)],
)
def test_a_damaged_piece_is_made_anew(toy: Toy, tmp_path: Path, piece: str, damage: bytes | None) -> None:
    journal = tmp_path / "journal"
    with pytest.raises(Interrupted):
        quantize(_job(toy.description), tmp_path / "half", _interrupt("output correction", 1), journal)
    found = sorted(journal.rglob(f"{piece}*.safetensors"))
    whole = found[-1].read_bytes()
    found[-1].write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert quantize(_job(toy.description), tmp_path / "out", _silent, journal).digest == toy.digest


def test_another_recipe_does_not_take_the_pieces(toy: Toy, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with pytest.raises(Interrupted):
        quantize(_job(toy.description), tmp_path / "half", _interrupt("output correction", 1), journal)
    before = _pieces(journal)
    for number, changed in enumerate(({"weight_bits": 5}, {"calibration": RECIPE["calibration"] | {"seed": 1}})):
        stages: list[str] = []
        with pytest.raises(Interrupted):
            stop = _interrupt("brecq", 1)

            def on_progress(name: str, *rest: Any, stop: Any = stop, stages: list[str] = stages) -> None:
                stages.append(name)
                stop(name, *rest)

            quantize(_job(toy.description, **changed), tmp_path / f"other{number}", on_progress, journal)
        assert "trajectories" in stages and "weight scales" in stages
    assert before <= _pieces(journal)


def test_pieces_have_names_of_their_own(toy: Toy) -> None:
    assert len(set(toy.pieces)) == len(toy.pieces)
    expected = {"trajectories-reference", "weight-scales", "tiar", "ranges-progressive", "output-correction"}
    assert expected <= set(toy.pieces)
    assert sum(piece.startswith("brecq-") for piece in toy.pieces) > 3


def test_a_loss_that_is_not_finite_names_the_unit_and_keeps_what_was_done(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = FakeQuantizedLayer.forward

    def poisoned(self: FakeQuantizedLayer, x: Tensor) -> Tensor:
        out = own(self, x)
        return out * float("nan") if torch.is_grad_enabled() and self.weight.shape[0] == 320 else out

    journal = tmp_path / "journal"
    monkeypatch.setattr(FakeQuantizedLayer, "forward", poisoned)
    with pytest.raises(CalibrationDiverged, match=r"mid_block\.attentions\.0\.transformer_blocks\.0.*nan"):
        quantize(_job(toy.description), tmp_path / "half", _silent, journal)
    assert {"trajectories-reference", "weight-scales", "tiar", "brecq-0001"} <= _pieces(journal)
    monkeypatch.undo()
    assert quantize(_job(toy.description), tmp_path / "out", _silent, journal).digest == toy.digest


def test_fine_tuning_that_diverges_says_at_which_update(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Trainer.update

    def poisoned(self: Trainer, loss: Tensor) -> float:
        if self.done == 2:
            next(iter(self.parameters.values())).data.fill_(float("nan"))
        return own(self, loss)

    journal = tmp_path / "journal"
    monkeypatch.setattr(Trainer, "update", poisoned)
    with pytest.raises(CalibrationDiverged, match="fine-tuning: the loss is nan at update 3 of 6"):
        quantize(_job(toy.description), tmp_path / "half", _silent, journal)
    assert {"ranges-progressive", "fine-tuning-0000"} <= _pieces(journal)
    monkeypatch.undo()
    assert quantize(_job(toy.description), tmp_path / "out", _silent, journal).digest == toy.digest


def test_the_journal_itself(tmp_path: Path) -> None:
    journal, calls = Journal(tmp_path / "own"), []

    def work() -> dict[str, Tensor]:
        calls.append(1)
        return {"a": torch.arange(6).view(2, 3).t(), "b": torch.tensor(2.5, dtype=torch.bfloat16), "c": torch.empty(0)}

    first, second = journal.once("piece", work), Journal(tmp_path / "own").once("piece", work)
    assert len(calls) == 1 and first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) and first[n].dtype == second[n].dtype for n in first)
    assert journal.has("piece") and not journal.has("other") and journal.seconds >= 0.0
    with pytest.raises(ZeroDivisionError):
        journal.once("other", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert not journal.has("other")
    journal.forget("piece")
    assert not journal.has("piece")
    journal.remove()
    assert not (tmp_path / "own").exists()
    assert Journal(None).once("piece", work).keys() == first.keys() and not Journal(None).has("piece")
    shutil.rmtree(tmp_path / "own", ignore_errors=True)


@pytest.mark.parametrize("damage", [b"", b"12.", b"1\x002", b"\xff\xfe"])
def test_a_damaged_clock_stops_nothing(tmp_path: Path, damage: bytes) -> None:
    Journal(tmp_path).once("piece", dict)
    clock = tmp_path / "seconds"
    assert float(clock.read_text()) >= 0.0 and not list(tmp_path.glob("*.part"))
    clock.write_bytes(damage)
    assert Journal(tmp_path).has("piece") and Journal(tmp_path).seconds < 60.0


def test_abandoned_journals_are_removed_when_a_calibration_begins(toy: Toy, tmp_path: Path) -> None:
    journals, week = tmp_path / "journals", 7 * 86_400
    for name in ("abandoned", "resumable"):
        Journal(journals / name).once("piece", dict)
    for path in ((abandoned := journals / "abandoned"), *abandoned.iterdir()):
        os.utime(path, (past := time.time() - week - 60, past))
    os.utime(journals / "resumable" / "piece.safetensors", (past, past))
    with pytest.raises(Interrupted):
        quantize(_job(toy.description), tmp_path / "half", _interrupt("brecq", 1), journals)
    assert not abandoned.exists()
    assert (journals / "resumable" / "piece.safetensors").is_file()


def test_sweeping_where_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    sweep(tmp_path, 0.0)
    sweep(tmp_path / "missing", 0.0)
    assert (tmp_path / "a file").is_file()
