"""What is asked for: everything that fixes a picture besides the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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

    @property
    def seeds(self) -> list[int]:
        """The seed of every picture."""
        return [(self.seed + i) % SEEDS for i in range(self.num_images)]

    @property
    def settings(self) -> dict[str, Any]:
        """What the pictures of many prompts share: all but prompt, seed and how many there are."""
        return {name: value for name, value in asdict(self).items() if name not in ("prompt", "seed", "num_images")}
