"""Where two pictures differ, as a picture."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from quant.errors import PictureMismatch


def difference_map(reference: Tensor, variant: Tensor) -> Image.Image:
    """The mean absolute difference of the channels of two pictures [3, H, W] in [0, 1], black for none and bright for a
    quarter of the range or more. Raises PictureMismatch for pictures of different sizes."""
    if reference.shape != variant.shape:
        raise PictureMismatch(f"pictures {tuple(reference.shape)} and {tuple(variant.shape)} have different sizes")
    strength = ((reference - variant).abs().mean(dim=0) * 4.0).clamp(0.0, 1.0).numpy()
    coloured = colormaps["inferno"](strength)[..., :3]
    return Image.fromarray((coloured * 255.0).round().astype(np.uint8))
