"""The floors: what figures are read against, since no model, however good, comes nearer to the reference than these."""

from __future__ import annotations

from collections.abc import Callable

from diffusers import DiffusionPipeline

from contract.catalogue import ModelDescription
from quant.checkpoints.pipelines import load_reference
from quant.fidelity.arm import Arm
from quant.fidelity.bfloat16 import bfloat16_copy

FLOOR = "floor"
"""What the arm of a floor is called where it is the only one."""
BFLOAT16 = "bfloat16"
"""What rounding alone does, from the same noise."""
OTHER_SEEDS = "other_seeds"
"""What other noise does: the same distribution, other pictures."""
FINITE_SAMPLE = "finite_sample"
"""What the number of pictures alone does to distances of sets. Nothing is drawn for it."""

OTHER_SEEDS_OFFSET = 2**31


def rounded(
    description: ModelDescription, reference: Callable[[], DiffusionPipeline], device: str = "cpu"
) -> DiffusionPipeline:
    """What differs from the reference by the rounding of floats alone: its denoiser in bfloat16 beside float32, and
    the whole in float32 beside any other type. `reference` is asked for the model in its own type, if need be."""
    if description.dtype == "float32":
        return bfloat16_copy(reference())
    return load_reference(description.model_copy(update={"dtype": "float32"})).to(device)


def floor_arms(reference: Arm, description: ModelDescription, device: str) -> tuple[Arm, Arm]:
    """The reference rounded, and from other noise."""
    dtype = BFLOAT16 if description.dtype == "float32" else "float32"
    return (
        Arm(BFLOAT16, reference.identity | {"dtype": dtype}, lambda: rounded(description, reference.load, device)),
        Arm(OTHER_SEEDS, reference.identity, reference.load, OTHER_SEEDS_OFFSET),
    )
