"""No floating-point matrix product or convolution runs in a quantized layer, and the integer ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.integer_profile import multiplies_floats, operators_by_place
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import load_reference, load_variant
from tests.support.engines import needs_onednn
from tests.support.tiny_world import TinyWorld

INPUTS = (torch.randn(2, 4, 32, 32), torch.tensor(10), torch.randn(2, 16, 32))


@needs_onednn
@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_layers_multiply_integers(tiny: TinyWorld, bits: int) -> None:
    unet = load_variant(tiny.folder(bits)).unet
    counts = operators_by_place(unet, INPUTS)
    integer = sum(n for name, n in counts["inside"].items() if name.startswith(("onednn::qconv", "onednn::qlinear")))
    assert integer == len(quantized_layers(unet))
    assert not [name for name in counts["inside"] if multiplies_floats(name)]
    kept = sum(isinstance(module, nn.Linear | nn.Conv2d) for module in unet.modules())
    assert sum(n for name, n in counts["outside"].items() if name.endswith(("::addmm", "mkldnn_convolution"))) == kept


def test_the_profile_sees_floating_point_products(tiny: TinyWorld) -> None:
    counts = operators_by_place(load_reference(tiny.description).unet, INPUTS)
    assert sum(n for name, n in counts["outside"].items() if multiplies_floats(name)) > 100
