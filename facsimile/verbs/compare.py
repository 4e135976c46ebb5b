"""`facsimile.compare`: how near a pipeline's pictures are to its reference's."""

from __future__ import annotations

import os
from collections.abc import Sequence

from diffusers import DiffusionPipeline

from contract.card import Statistic
from facsimile.verbs.load import opened
from quant.checkpoints.pipelines import native_size
from quant.errors import EvaluationError
from quant.fidelity.backbone import Backbones
from quant.fidelity.consistency import consistency
from quant.fidelity.metric import metric
from quant.fidelity.metric_choice import CONSISTENCY, choose
from quant.sampling.progress import Progress, silent
from quant.sampling.prompts import Prompt
from quant.sampling.request import Sampling


def compare(
    reference: DiffusionPipeline | str | os.PathLike[str],
    variant: DiffusionPipeline | str | os.PathLike[str],
    prompts: str | Sequence[str] | None = None,
    *,
    seed: int = 0,
    num_images: int = 1,
    num_inference_steps: int = 25,
    guidance_scale: float = 4.0,
    size: tuple[int, int] | None = None,
    metrics: Sequence[str] = CONSISTENCY,
    on_progress: Progress | None = None,
) -> dict[str, Statistic]:
    """Draws every prompt with both pipelines from the same noise, and measures the second's pictures against the
    first's.

    Args:
        reference: the floating-point pipeline, or its folder.
        variant: the pipeline to measure, or its folder.
        prompts: a prompt or several; None for pipelines that take none.
        seed: of the first picture; every further picture has the next one.
        num_images: pictures of each prompt.
        num_inference_steps: steps of the sampler.
        guidance_scale: of classifier-free guidance; above 1 there is some.
        size: width and height in pixels. None: what the reference's denoiser was made for.
        metrics: names of metrics that compare pictures one by one, such as `psnr`, `ssim`, `latent_mse`, `lpips`; none:
            all that can be measured.
        on_progress: called at every step with a stage, the pictures done, and how many there are.

    Returns:
        For each metric its mean over the pictures, a bootstrap interval of 95 %, and the number of pictures. The mean
        is None, with the reason, where all pictures are identical and psnr is infinite.

    Raises:
        ModelError, CheckpointError: a folder cannot be loaded.
        EvaluationError: there is no such metric, or it compares whole sets of pictures (`bench` has those).
        BackboneMissing: a metric looks through a model whose weights are not at hand.
        SamplingError: the pipelines cannot draw what is asked.
        InvalidPicture: a picture is not finite, or one flat colour."""
    first, second = opened(reference), opened(variant)
    width, height = size or native_size(first)
    of_sets = [each.key for each in map(metric, metrics) if each.of_sets]
    if of_sets:
        raise EvaluationError(f"{', '.join(of_sets)} compares sets of pictures: facsimile.bench measures it")
    chosen, _ = choose(tuple(metrics), Backbones(), height, width)
    sampling = Sampling(
        seed=seed, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, width=width, height=height
    )
    texts: Sequence[str | None] = [prompts] if prompts is None or isinstance(prompts, str) else prompts
    asked = [Prompt("", text) for text in texts for _ in range(num_images)]
    keys = tuple(each.key for each in chosen if not each.of_sets)
    return consistency(first, {"variant": second}, asked, sampling, keys, on_progress or silent)["variant"]
