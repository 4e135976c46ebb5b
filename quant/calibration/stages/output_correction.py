"""Stage: what is known about the error of the finished denoiser's output is taken out (PTQD, arXiv 2305.10657)."""

from __future__ import annotations

import torch
from torch import Tensor

from contract.stages import NoCorrection, Ptqd
from quant.calibration.bench import Bench
from quant.calibration.probe import Probe
from quant.calibration.stage import Kinds, Stage
from quant.calibration.trajectories import Drawn
from quant.layers.output_correction import OutputCorrection, fit_correction


class _Ptqd(Stage[Ptqd]):
    """Slope and bias of every step, from outputs of student and reference at the student's own states."""

    def seconds(self, options: Ptqd, probe: Probe) -> float:
        return 2 * probe.drawing(options.prompts)

    def apply(self, options: Ptqd, bench: Bench, drawn: Drawn) -> None:
        fitted = bench.journal.once("output-correction", lambda: _fit(bench, options.prompts))
        timesteps, slope, bias = (fitted[name] for name in ("timesteps", "slope", "bias"))
        fits = {t: (float(slope[k]), bias[k]) for k, t in enumerate(timesteps.tolist())}
        bench.student.correction = OutputCorrection.of(fits)


@torch.no_grad()
def _fit(bench: Bench, prompts: int) -> dict[str, Tensor]:
    """A step is fitted and corrected before the next one is reached."""
    walks = bench.walks(prompts)
    student, reference = bench.denoise(bench.student.denoiser), bench.denoise(bench.reference)
    fits: dict[float, tuple[float, Tensor]] = {}
    for timestep in walks[0].timesteps:
        outputs = [student(*walk.state.rows) for walk in walks]
        targets = [reference(*walk.state.rows) for walk in walks]
        slope, bias = fits.setdefault(timestep, fit_correction(torch.cat(targets), torch.cat(outputs)))
        for walk, output in zip(walks, outputs, strict=True):
            walk.advance((output - bias[:, None, None]) / (1.0 + slope))
        bench.progress("output correction", walks[0].step, len(walks[0].timesteps))
    slopes, biases = zip(*fits.values(), strict=True)
    return {"timesteps": torch.tensor(list(fits)), "slope": torch.tensor(slopes), "bias": torch.stack(biases)}


STAGE = Kinds({NoCorrection: Stage(), Ptqd: _Ptqd()})
