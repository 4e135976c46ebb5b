"""Progressive calibration: the range of a step is set on what arrives there when all earlier steps are quantized."""

from __future__ import annotations

import torch

from quant.calibration.bench import Bench
from quant.calibration.ranges import settle, watch


@torch.no_grad()
def calibrate_progressively(bench: Bench, prompts: int, observer: str, passes: int = 1) -> None:
    """Sets the ranges of the student, whose quantizers are on and hold ranges to start from, in place (PCR, arXiv
    2311.06322, algorithm 1).

    All batches stand at the same step: a step is run with its old ranges and watched, its ranges are set, and it is run
    again to go on. That is exact for deterministic samplers and takes 2 evaluations per step, where walking from the
    start for every step takes (T + 1) / 2. `passes` repeats watching and setting: while a step is watched, layers
    further on still read what the old ranges let through."""
    denoise, quantizers = bench.denoise(bench.student.denoiser), bench.student.quantizers
    walks = bench.walks(min(prompts, len(bench.run.prompts)))
    timesteps = walks[0].timesteps
    groups = [bench.groups.nearest(t) for t in timesteps]
    for step, group in enumerate(groups):
        if group not in groups[:step]:
            for _ in range(passes):
                with watch(quantizers, observer) as observers:
                    for walk in walks:
                        denoise(*walk.state.rows)
                settle(quantizers, observers, [group])
        for walk in walks:
            walk.advance(denoise(*walk.state.rows))
        bench.progress("progressive ranges", step + 1, len(timesteps), f"timestep {timesteps[step]:g}")
