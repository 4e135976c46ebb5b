"""From a recipe's options to the layout of one model."""

from __future__ import annotations

from itertools import pairwise

from diffusers import DiffusionPipeline
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from contract.recipe import Recipe
from contract.stages import NoCorrection, Stages
from quant.checkpoints.layout import Layout
from quant.checkpoints.pipelines import denoiser_of
from quant.errors import RecipeMismatch


def layout_of(pipeline: DiffusionPipeline, recipe: Recipe, stages: Stages) -> Layout:
    """How recipe and stages lay out the pipeline's denoiser. Raises RecipeMismatch when they ask for what is not
    there."""
    denoiser = denoiser_of(pipeline)
    asked = recipe.split_shortcuts is not None
    splits = shortcut_splits(denoiser) if (recipe.split_shortcuts if asked else stages.split_shortcuts) else {}
    if recipe.split_shortcuts and not splits:
        raise RecipeMismatch("split_shortcuts: this model has no shortcut convolution over a skip connection")
    timesteps, time_path = _sampler_timesteps(pipeline, recipe), stages.time_path.kind
    corrected = not isinstance(stages.output_correction, NoCorrection)
    return Layout(
        weight_bits=recipe.weight_bits,
        keep_float=recipe.keep_float,
        layer_bits=dict(recipe.layer_bits),
        timesteps=representatives(timesteps, recipe.timestep_groups or (len(set(timesteps)) if stages.per_step else 1)),
        splits=splits,
        dynamic_activations=recipe.dynamic_activations,
        attention_bits=recipe.attention_bits,
        softmax_bits=recipe.softmax_bits,
        packed=recipe.packed,
        time_path="keep" if time_path == "tiar" else time_path,
        schedule=tuple(dict.fromkeys(timesteps)) if time_path in ("precalculate", "per_request") or corrected else (),
        output_correction=corrected,
    )


def representatives(timesteps: list[float], groups: int) -> tuple[float, ...]:
    """The middle timestep of each of `groups` runs of neighbouring steps, as equal in length as they can be; none for a
    single group, which needs no telling apart.

    >>> representatives([900.0, 700.0, 500.0, 300.0, 100.0], 2)
    (700.0, 300.0)
    """
    if groups == 1:
        return ()
    unique = list(dict.fromkeys(timesteps))
    if groups > len(unique):
        raise RecipeMismatch(f"timestep_groups {groups} is more than the {len(unique)} timesteps of the sampler")
    edges = [round(i * len(unique) / groups) for i in range(groups + 1)]
    return tuple(unique[(a + b - 1) // 2] for a, b in pairwise(edges))


def shortcut_splits(denoiser: nn.Module) -> dict[str, int]:
    """For every shortcut convolution of the up blocks: how many of its input channels come from below, the others being
    the skip connection's."""
    splits: dict[str, int] = {}
    channels: int | None = None
    for name, block in denoiser.named_modules():  # in the order of construction: down, up, middle
        if not isinstance(block, ResnetBlock2D) or not name.startswith(("mid_block.", "up_blocks.")):
            continue
        if name.startswith("up_blocks.0.resnets.0"):
            channels = _middle_channels(denoiser)
        if channels is not None and block.conv_shortcut is not None and block.in_channels > channels:
            splits[f"{name}.conv_shortcut"] = channels
        channels = block.out_channels
    return splits


def _middle_channels(denoiser: nn.Module) -> int:
    middle = [m for n, m in denoiser.named_modules() if n.startswith("mid_block.") and isinstance(m, ResnetBlock2D)]
    return int(middle[-1].out_channels)


def _sampler_timesteps(pipeline: DiffusionPipeline, recipe: Recipe) -> list[float]:
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(recipe.calibration.num_inference_steps)
    return [float(t) for t in scheduler.timesteps]
