"""What can be tested of the GPU's benchmark without a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks.cuda_step import LAYOUTS, SEED, arguments, draw_unet, quantized_unet
from benchmarks.shape import SHAPES


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_says_so() -> None:
    command = [sys.executable, "-m", "benchmarks.cuda_step"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("This benchmark needs the CUDA engine (")
    assert len(done.stderr.splitlines()) == 1


@torch.no_grad()
@pytest.mark.parametrize("scheme", LAYOUTS)
def test_the_quantized_unet_follows_the_other(scheme: str) -> None:
    device, shape = torch.device("cpu"), SHAPES["tiny"]
    given = arguments(shape, 2, SEED, device)
    exact = draw_unet(shape, device)(**given, return_dict=False)[0].double()
    got = quantized_unet(shape, LAYOUTS[scheme], device)(**given, return_dict=False)[0].double()
    assert float((got - exact).norm() / exact.norm()) < (0.5 if scheme.startswith("w4") else 0.15)
