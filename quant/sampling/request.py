"""What is asked for: everything that fixes a picture besides the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from contract.catalogue import ModelDescription
from contract.recipe import CalibrationRun
from quant.sampling.seeds import SEEDS

Asked = str | None
"""What a picture is asked with: a prompt, or nothing for a model that takes none."""


@dataclass(frozen=True)
class Sampling:
    """One request. `prompt` is None for a model that draws without one."""

    prompt: Asked = None
    negative_prompt: str = ""
    seed: int = 0
    num_inference_steps: int = 25
    guidance_scale: float = 4.0
    width: int = 128
    height: int = 128
    num_images: int = 1
    scheduler: str | None = None

    @classmethod
    def native(cls, description: ModelDescription) -> Self:
        """What a model is meant for: steps, guidance and size as its description has them; no prompt, seed 0."""
        return cls(
            num_inference_steps=description.num_inference_steps,
            guidance_scale=description.guidance_scale,
            width=description.width,
            height=description.height,
        )

    @classmethod
    def of_calibration(cls, run: CalibrationRun, size: tuple[int, int]) -> Self:
        """What a recipe calibrates with: its seed, steps and guidance, and pictures of a size (width, height); no
        prompt."""
        width, height = size
        return cls(
            seed=run.seed,
            num_inference_steps=run.num_inference_steps,
            guidance_scale=run.guidance_scale,
            width=width,
            height=height,
        )

    def changed(self, **given: Any) -> Self:
        """The same sampling with other values of the fields that are given; None leaves a field as it is. Raises
        TypeError for a name that is no field."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    @property
    def seeds(self) -> list[int]:
        """The seed of every picture."""
        return [(self.seed + i) % SEEDS for i in range(self.num_images)]

    @property
    def settings(self) -> dict[str, Any]:
        """What the pictures of many prompts share: all but prompt, seed and how many there are."""
        return {name: value for name, value in asdict(self).items() if name not in ("prompt", "seed", "num_images")}
