"""CLIP (Radford et al. 2021, arXiv 2103.00020): pictures and texts in one space, through transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import cached_file

from quant.errors import BackboneMissing, ModelError

HUB_ID = "openai/clip-vit-large-patch14"
"""What is looked for in the local Hugging Face cache when the folder has no CLIP."""

WEIGHTS = "model.safetensors"


class ClipBackbone:
    """Picture and text embeddings of one CLIP, not normalized."""

    def __init__(self, model: Any, tokenizer: Any, mean: Tensor, std: Tensor) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.mean = mean
        self.std = std

    @torch.no_grad()
    def embed(self, values: Tensor) -> Tensor:
        """Float32 [N, D] of pictures [N, 3, H, W] in [0, 1] of any size."""
        return cast(Tensor, self.model.get_image_features(pixel_values=self.prepare(values)).pooler_output)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """Float32 [N, D] of N texts; what a text has beyond the model's length is cut."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        features = self.model.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return cast(Tensor, features.pooler_output)

    def prepare(self, values: Tensor) -> Tensor:
        """The model's input, float32 [N, 3, S, S], of pictures [N, 3, H, W] in [0, 1]: the short side resized to S
        (bicubic, antialiased), the centre cut out, each channel normalized. OpenAI's steps, not rounded to 8 bits."""
        side = self.model.config.vision_config.image_size
        height, width = values.shape[2:]
        size = (side, side * width // height) if height <= width else (side * height // width, side)
        resized = functional.interpolate(values, size, mode="bicubic", align_corners=False, antialias=True)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        return (resized.clamp(0.0, 1.0)[:, :, top : top + side, left : left + side] - self.mean) / self.std


def load(folder: Path) -> ClipBackbone:
    """CLIP from `folder`, or else `HUB_ID` from the local Hugging Face cache; weights are safetensors only.

    Raises BackboneMissing when there is neither, and ModelError for files that cannot be read or lack tensors."""
    place = folder if (folder / WEIGHTS).is_file() else _cached(folder)
    try:
        model, report = CLIPModel.from_pretrained(
            place, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(place, local_files_only=True)
        mean, std = _normalization(place)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"the CLIP in {place} cannot be read, fetch its folder again: {reason}") from error
    if report["missing_keys"]:
        raise ModelError(f"the CLIP in {place} lacks {len(report['missing_keys'])} of its tensors: fetch it again")
    return ClipBackbone(model.eval().requires_grad_(False), tokenizer, mean, std)


def _cached(folder: Path) -> Path:
    """The folder of `HUB_ID` in the local cache."""
    try:
        found = cached_file(HUB_ID, WEIGHTS, local_files_only=True)
    except OSError:
        found = None
    if found is None:
        raise BackboneMissing(
            f"no CLIP: neither {WEIGHTS} in {folder}, nor {HUB_ID} in the local Hugging Face cache; put a CLIP folder "
            f"(config.json, {WEIGHTS} and the tokenizer's files) there, or fetch it with `hf download {HUB_ID}`"
        )
    return Path(found).parent


def _normalization(place: Path) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the pixels' channels, [1, 3, 1, 1] each: the folder's own, or else OpenAI's."""
    file = place / "preprocessor_config.json"
    own = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    mean, std = own.get("image_mean", OPENAI_CLIP_MEAN), own.get("image_std", OPENAI_CLIP_STD)
    return torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
