"""Stage: the ranges of activations, shared by all steps or one for every step."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from contract.stages import LearnedRanges, ObservedRanges, ProgressiveRanges
from contract.stages.ranges import Ranges
from quant.calibration.bench import Bench
from quant.calibration.observed import LEAST_ERROR, journaled, observe, observe_reference, watch_all
from quant.calibration.probe import Probe
from quant.calibration.progressive import calibrate_progressively
from quant.calibration.reconstruction.each_unit import reconstruct_each_unit
from quant.calibration.reconstruction.objective import Objective
from quant.calibration.stage import Kinds, Stage
from quant.calibration.trajectories import Drawn

O = TypeVar("O", bound=Ranges)  # noqa: E741


class _Ranges(Stage[O]):
    """Sets all ranges of the student and turns its quantizers on, unless they came with the rounding."""

    def seconds(self, options: O, probe: Probe) -> float:
        return probe.seconds * probe.samples

    def apply(self, options: O, bench: Bench, drawn: Drawn) -> None:
        if not bench.stages.rounding.sets_ranges:
            self.set(options, bench, drawn)
        bench.student.quantize_inputs(True)

    @abstractmethod
    def set(self, options: O, bench: Bench, drawn: Drawn) -> None:
        """Sets the ranges."""


class _Observed(_Ranges[ObservedRanges]):
    def set(self, options: ObservedRanges, bench: Bench, drawn: Drawn) -> None:
        observe(bench, drawn, options)


class _Learned(_Ranges[LearnedRanges]):
    """By least error, then unit by unit (LSQ, arXiv 1902.08153)."""

    def memory(self, options: LearnedRanges, probe: Probe) -> int:
        return probe.reconstruction_bytes(options.batch)

    def seconds(self, options: LearnedRanges, probe: Probe) -> float:
        learned = probe.reconstructing(options.iterations, options.batch)
        return super().seconds(options, probe) + learned

    def set(self, options: LearnedRanges, bench: Bench, drawn: Drawn) -> None:
        journaled(bench, "ranges-observed", lambda: watch_all(bench, drawn, LEAST_ERROR.kind))
        bench.student.quantize_inputs(True)
        objective = Objective(options.iterations, options.batch, 0.0, options.learning_rate, power=2.4)
        reconstruct_each_unit(bench, drawn, "lsq", objective, from_prefix=False)


class _Progressive(_Ranges[ProgressiveRanges]):
    """Step after step, earlier ones being quantized already (PCR, arXiv 2311.06322)."""

    def seconds(self, options: ProgressiveRanges, probe: Probe) -> float:
        pictures = min(options.prompts, probe.prompts)
        return probe.drawing(pictures) * (options.passes + 2)

    def set(self, options: ProgressiveRanges, bench: Bench, drawn: Drawn) -> None:
        observe_reference(bench, drawn, "progressive")

        def work() -> None:
            bench.student.quantize_inputs(True)
            calibrate_progressively(bench, options.prompts, options.observer, options.passes)
            bench.student.quantize_inputs(False)

        journaled(bench, "ranges-progressive", work)


STAGE = Kinds({ObservedRanges: _Observed(), LearnedRanges: _Learned(), ProgressiveRanges: _Progressive()})
