"""The judge: a small classifier of what a picture shows. Its answers score prompts, its features feed distances."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from quant.errors import BackboneMissing


class _Residual(nn.Module):
    """Halves the resolution: a strided convolution, then a residual one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm1(self.reduce(x)))
        return cast(Tensor, x + self.activation(self.norm2(self.conv(x))))


class Judge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Classifies every attribute of a picture.

    `heads` are attributes and their words, such as `[("floor", ["light", "dark"]), ("shape.0", [...])]`, in the order
    of the classifiers: a list, because a dictionary loses its order in a config file."""

    @register_to_config
    def __init__(
        self, heads: list[tuple[str, list[str]]], image_size: int = 128, channels: tuple[int, ...] = (32, 64, 128, 192)
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1, stride=1, bias=False)
        steps = zip((channels[0], *channels[:-1]), channels, strict=True)
        self.body = nn.Sequential(*(_Residual(a, b) for a, b in steps))
        side = image_size // 2 ** len(channels)
        self.squeeze = nn.Conv2d(channels[-1], 32, 1)
        self.features = nn.Linear(32 * side * side, 256)
        self.classifiers = nn.ModuleList(nn.Linear(256, len(words)) for _, words in heads)

    def embed(self, pictures: Tensor) -> Tensor:
        """Penultimate features, float32 [N, 256], of pictures [N, 3, S, S] in [-1, 1]."""
        return nn.functional.silu(self.features(self.squeeze(self.body(self.stem(pictures))).flatten(1)))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits [N, words] per attribute, of pictures [N, 3, S, S] in [-1, 1]."""
        features = self.embed(pictures)
        names = (name for name, _ in self.config.heads)
        return {name: head(features) for name, head in zip(names, self.classifiers, strict=True)}

    @torch.no_grad()
    def read(self, pictures: Tensor) -> list[dict[str, str]]:
        """The likeliest word for every attribute, one dictionary per picture [N, 3, S, S] in [-1, 1]."""
        answers: list[dict[str, str]] = [{} for _ in range(len(pictures))]
        for (name, words), logits in zip(self.config.heads, self(pictures).values(), strict=True):
            for answer, index in zip(answers, logits.argmax(1).tolist(), strict=True):
                answer[name] = words[index]
        return answers


def load_judge(folder: Path) -> Judge:
    """The judge in a folder, ready to read. Raises BackboneMissing, saying what was looked for."""
    if not (folder / "config.json").is_file():
        raise BackboneMissing(
            f"no judge in {folder}: train one with `python -m shapes.train judge`, or give its folder"
        )
    return cast(Judge, Judge.from_pretrained(folder).eval())
