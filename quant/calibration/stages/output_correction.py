"""Stage: what is known about the error of the finished denoiser's output is taken out (PTQD, arXiv 2305.10657)."""

from __future__ import annotations

import torch
from torch import Tensor

from contract.stages import NoCorrection
from quant.calibration.workbench import Workbench
from quant.layers.output_correction import OutputCorrection, fit_correction
from quant.sampling.walk import denoise_with


def fit(bench: Workbench) -> OutputCorrection | None:
    """Slope and bias of every step, from outputs of student and reference at the student's own states."""
    options = bench.stages.output_correction
    if isinstance(options, NoCorrection):
        return None
    found = bench.journal.once("output-correction", lambda: _fit(bench, options.prompts))
    fits = {t: (float(found["slope"][k]), found["bias"][k]) for k, t in enumerate(found["timesteps"].tolist())}
    return OutputCorrection.of(fits)


@torch.no_grad()
def _fit(bench: Workbench, prompts: int) -> dict[str, Tensor]:
    """A step is fitted and corrected before the next one is reached."""
    walks = bench.run.walks(bench.pipeline, prompts)
    student, reference = (denoise_with(bench.pipeline, one) for one in (bench.student, bench.reference))
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
