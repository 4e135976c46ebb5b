"""The integer engines of this processor, for tests that try each."""

from __future__ import annotations

import pytest
import torch

from quant.engine.onednn import OneDNNEngine
from quant.engine.passes import TorchPasses
from quant.engine.processor import allows
from quant.engine.reference import ReferenceEngine

ONEDNN, REFERENCE = OneDNNEngine(TorchPasses()), ReferenceEngine()

_EXACT_WITH = ("avx512_vnni", "avx_vnni", "amx_int8")

needs_onednn = pytest.mark.skipif(
    not any(torch.cpu.get_capabilities().get(feature) for feature in _EXACT_WITH) or not allows("avx512_vnni"),
    reason="without VNNI or AMX oneDNN sums pairs of products in 16 bits, saturated: it is not used there",
)
ENGINES = [pytest.param(ONEDNN, id="onednn", marks=needs_onednn), pytest.param(REFERENCE, id="reference")]
