"""SDNQ through diffusers' own configuration class: int8 weights, int8 products with scales found at run time."""

from __future__ import annotations

import torch
from diffusers import SDNQConfig

from benchmarks.contender import Loaded, Task
from benchmarks.shape import inputs, load_unet

PACKAGES = ("sdnq", "openvino")
NOT_CONVERTED = ("conv_in", "conv_out", "time_embedding", "time_emb_proj")


def load(task: Task) -> Loaded:
    """Linear and convolution layers; the products go to OpenVINO's kernels, which is SDNQ's own choice on a CPU."""
    config = SDNQConfig(
        weights_dtype="int8",
        group_size=-1,
        quant_conv=True,
        use_quantized_matmul=True,
        use_quantized_matmul_conv=True,
        modules_to_not_convert=list(NOT_CONVERTED),
    )
    unet = load_unet(task.shape, torch.bfloat16, quantization_config=config)
    arguments = inputs(task.shape, task.batch, task.seed, torch.bfloat16)
    return Loaded(lambda: unet(**arguments, return_dict=False)[0], unet)
