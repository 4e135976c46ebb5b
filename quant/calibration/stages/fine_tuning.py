"""Stage: training the quantized denoiser as a whole, in rounds."""

from __future__ import annotations

from torch import Tensor

from contract.stages import FineTuning, NoFineTuning
from quant.calibration.bench import Bench
from quant.calibration.probe import FLOAT, KEPT_FOR_BACKWARD, TRAINED, Probe
from quant.calibration.stage import Kinds, Stage
from quant.calibration.trajectories import Drawn
from quant.calibration.tuning.features import stages_of
from quant.calibration.tuning.rounds import STAGE as NAME
from quant.calibration.tuning.rounds import Rounds
from quant.calibration.tuning.trainer import Trainer
from quant.calibration.tuning.validation import Validation
from quant.calibration.weight_sensitivity import most_sensitive

_COPIES = 7
"""Masters, gradients, two moments of Adam, the state before training, and a state on its way to the journal with it."""


class _FineTuning(Stage[FineTuning]):
    """Serial, parallel or serial-to-parallel training from what the stages before made; undone where it did harm."""

    def check(self, options: FineTuning, bench: Bench) -> None:
        if options.compares_features:
            stages_of(bench.reference)

    def memory(self, options: FineTuning, probe: Probe) -> int:
        kept = 1 if options.target == "student_state" else 1 + probe.branches
        states = options.prompts * probe.steps * kept * probe.latents * FLOAT
        activations = KEPT_FOR_BACKWARD * 2 * options.batch * probe.branches * probe.activations
        return (_COPIES - 1) * probe.weights + activations + states

    def seconds(self, options: FineTuning, probe: Probe) -> float:
        rows = options.updates(probe.steps) * options.batch * probe.branches
        taught = probe.seconds * (1 + TRAINED) * rows
        collected = 0 if options.kind == "serial" else options.rounds * options.prompts
        return taught + probe.drawing(collected + 3 * options.validation_prompts)

    def apply(self, options: FineTuning, bench: Bench, drawn: Drawn) -> None:
        sensitive = most_sensitive(bench, drawn) if options.freezing == "sensitive" else frozenset[str]()
        trainer = Trainer(bench, options, options.updates(len(bench.timesteps)), sensitive)
        validation = Validation(bench, options.validation_prompts)
        rounds = Rounds(bench, options, trainer)
        start = _resume(bench, options, trainer, validation)
        for number in range(start, options.rounds):
            if number == 0:
                bench.progress(NAME, 0, options.rounds, f"error of held-out latents {validation.before:.4g}")
            loss = rounds.run(number)
            bench.progress(NAME, number + 1, options.rounds, f"loss {loss:.4g}")
            bench.journal.once(_piece(number), lambda: _state(bench, trainer, validation))
            bench.journal.forget(_piece(number - 1))
        after = validation.judge()
        bench.progress(NAME, options.rounds, options.rounds, f"error of held-out latents {after:.4g}")


STAGE = Kinds({NoFineTuning: Stage(), FineTuning: _FineTuning()})


def _state(bench: Bench, trainer: Trainer, validation: Validation) -> dict[str, Tensor]:
    layers = {f"layer/{name}": tensor for name, tensor in bench.student.trained.items()}
    return layers | {f"trainer/{k}": t for k, t in trainer.state().items()} | validation.state()


def _resume(bench: Bench, options: FineTuning, trainer: Trainer, validation: Validation) -> int:
    """Takes over the state after the last finished round; returns the number of the next one."""
    finished = [number for number in range(options.rounds) if bench.journal.has(_piece(number))]
    if not finished:
        return 0
    tensors = bench.journal.once(_piece(finished[-1]), dict)
    if not tensors:  # the file was damaged
        bench.journal.forget(_piece(finished[-1]))
        return 0
    bench.student.restore({k.removeprefix("layer/"): t for k, t in tensors.items() if k.startswith("layer/")})
    trainer.restore({k.removeprefix("trainer/"): t for k, t in tensors.items() if k.startswith("trainer/")})
    validation.restore(tensors)
    return finished[-1] + 1


def _piece(number: int) -> str:
    return f"{NAME}-{number:04d}"
