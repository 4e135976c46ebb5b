"""From a recipe's options to the layout of one model."""

from __future__ import annotations

from diffusers import DiffusionPipeline
from torch import nn

from contract.recipe import Recipe
from quant.errors import RecipeMismatch
from quant.layout import Layout
from quant.pipelines import denoiser_of


def layout_of(pipeline: DiffusionPipeline, recipe: Recipe) -> Layout:
    """How the recipe lays out the pipeline's denoiser. Raises RecipeMismatch when it asks for what is not there."""
    denoiser = denoiser_of(pipeline)
    splits = shortcut_splits(denoiser) if recipe.split_shortcuts else {}
    if recipe.split_shortcuts and not splits:
        raise RecipeMismatch("split_shortcuts: this model has no shortcut convolution over a skip connection")
    return Layout(
        weight_bits=recipe.weight_bits,
        keep_float=recipe.keep_float,
        layer_bits=dict(recipe.layer_bits),
        timesteps=representatives(_sampler_timesteps(pipeline, recipe), recipe.timestep_groups),
        splits=splits,
        dynamic_activations=recipe.dynamic_activations,
        attention_bits=recipe.attention_bits,
        softmax_bits=recipe.softmax_bits,
        packed=recipe.packed,
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
    return tuple(unique[(a + b - 1) // 2] for a, b in zip(edges, edges[1:], strict=False))


def shortcut_splits(denoiser: nn.Module) -> dict[str, int]:
    """For every shortcut convolution of the up blocks: how many of its input channels come from below, the others being
    the skip connection's."""
    splits: dict[str, int] = {}
    if not hasattr(denoiser, "up_blocks") or not hasattr(denoiser, "mid_block"):
        return splits
    channels = int(denoiser.mid_block.resnets[-1].out_channels)
    for i, block in enumerate(denoiser.up_blocks):  # type: ignore[arg-type]
        for j, resnet in enumerate(block.resnets):
            if resnet.conv_shortcut is not None and resnet.in_channels > channels:
                splits[f"up_blocks.{i}.resnets.{j}.conv_shortcut"] = channels
            channels = int(resnet.out_channels)
    return splits


def _sampler_timesteps(pipeline: DiffusionPipeline, recipe: Recipe) -> list[float]:
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(recipe.calibration.num_inference_steps)
    return [float(t) for t in scheduler.timesteps]
