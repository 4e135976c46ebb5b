"""From a recipe's options to the layout of one model, and to the graph that the layout asks for."""

from __future__ import annotations

from itertools import pairwise

from diffusers import DiffusionPipeline

from contract.recipe import Recipe
from contract.stages import Stages
from quant.checkpoints.layout import Layout, Plan, prepare
from quant.checkpoints.pipelines import denoiser_of
from quant.discovery import anatomy_of, family_of
from quant.errors import RecipeMismatch
from quant.layers.time_path.delta import add_deltas
from quant.layers.time_path.serving import serve
from quant.sampling.request import Sampling
from quant.sampling.schedulers import new_scheduler


def graph_of(pipeline: DiffusionPipeline, recipe: Recipe, stages: Stages, size: tuple[int, int]) -> tuple[Layout, Plan]:
    """Brings the pipeline's denoiser into the graph that will be served, in floating point and in place: shortcuts
    split, time path replaced. Raises what `layout_of` and `prepare` raise."""
    layout, denoiser = layout_of(pipeline, recipe, stages, size), denoiser_of(pipeline)
    plan = prepare(denoiser, layout)
    if layout.replaces_time_path:
        anatomy = anatomy_of(denoiser)
        path = anatomy.time_path(denoiser)
        serve(denoiser, path, layout.time_path, layout.schedule, anatomy.clock)
        if layout.time_deltas:
            add_deltas(denoiser, path, len(layout.schedule))
    return layout, plan


def layout_of(pipeline: DiffusionPipeline, recipe: Recipe, stages: Stages, size: tuple[int, int]) -> Layout:
    """How recipe and stages lay out the pipeline's denoiser for pictures of a size (width, height). Raises
    RecipeMismatch when they ask for what is not there."""
    denoiser = denoiser_of(pipeline)
    anatomy = anatomy_of(denoiser)
    asked = recipe.split_shortcuts is not None
    splits = anatomy.splits(denoiser) if (recipe.split_shortcuts if asked else stages.split_shortcuts) else {}
    if recipe.split_shortcuts and not splits:
        raise RecipeMismatch("split_shortcuts: this model has no shortcut convolution over a skip connection")
    if recipe.attention_bits is not None and not anatomy.attentions(denoiser):
        raise RecipeMismatch(f"attention_bits: the attention of {type(denoiser).__name__} has no integer products yet")
    timesteps, time_path = _sampler_timesteps(pipeline, recipe, size), stages.time_path.kind
    if time_path == "precalculate" and anatomy.time_path(denoiser).request:  # as far as it goes: once a request
        time_path = "per_request"
    trained = stages.fine_tuning.trains_time_tables
    corrected = stages.output_correction.kind != "none"
    return Layout(
        weight_bits=recipe.weight_bits,
        keep_float=anatomy.layers_called(recipe.keep_float, denoiser),
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
        time_bits=recipe.time_bits if time_path == "per_request" else None,
        time_deltas=time_path == "per_request" and trained,
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


def _sampler_timesteps(pipeline: DiffusionPipeline, recipe: Recipe, size: tuple[int, int]) -> list[float]:
    width, height = size
    scheduler = new_scheduler(pipeline)
    asked = Sampling(num_inference_steps=recipe.calibration.num_inference_steps, width=width, height=height)
    family_of(pipeline).begin(pipeline, scheduler, asked)
    return [float(t) for t in scheduler.timesteps]
