"""Every kernel of the CUDA engine, as the engine launches it, compiles for Ampere and Hopper; that needs no GPU.

The file runs itself in a process of its own: Triton decides once, when it is imported, whether to compile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.places import ROOT

pytest.importorskip("triton", reason="Triton is not installed: the kernels of the CUDA engine are not compiled")

CAPABILITIES = (80, 90)
KERNELS = {
    "product_kernel", "unpack_kernel", "quantize_kernel", "layer_norm_kernel", "geglu_kernel", "per_token_kernel",
    "moments_kernel", "affine_kernel",
}  # fmt: skip


@pytest.mark.slow
def test_every_kernel_compiles(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    searched = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": searched}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    assert {(name, capability) for name, capability, _ in compiled} == {(k, c) for k in KERNELS for c in CAPABILITIES}
    products = [instructions for name, _, instructions in compiled if name == "product_kernel"]
    assert all("s32.s8.s8" in each for each in products), "a product does not multiply int8 on the tensor cores"


def _launch_everything() -> None:
    import torch
    from torch import nn

    from quant.engine.engine import Operands, Window
    from quant.engine.triton.engine import TritonEngine
    from quant.quantizers.activation import ActivationParameters, ActivationTable

    def operands(*shape: int) -> Operands:
        table = ActivationTable((ActivationParameters(0.02, 117),))
        return Operands(torch.zeros(shape, dtype=torch.int8), torch.ones(shape[0]), torch.ones(shape[0]), table)

    engine, to, passes = TritonEngine(), ActivationParameters(0.02, 117), TritonEngine().passes
    bfloat16 = torch.zeros(2, 320, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    tokens = torch.zeros(2, 64, 320, dtype=torch.bfloat16)
    residual = torch.zeros(2, 64, 640, dtype=torch.bfloat16)
    linear, odd = engine.linear(operands(640, 320), packed=True), engine.linear(operands(33, 7))
    linear(passes.quantize(tokens, to), 0, torch.bfloat16, residual)
    linear.per_token(*passes.quantize_per_token(tokens), torch.bfloat16)
    odd(torch.zeros(3, 7, dtype=torch.uint8), 0, torch.float32)
    passes.layer_norm(tokens, nn.LayerNorm(320), to)
    passes.geglu(tokens, to)
    conv = engine.conv2d(operands(320, 320, 3, 3), Window(padding=(1, 1)))
    conv(passes.quantize_image(bfloat16, to, (1, 1)), 0, torch.bfloat16)
    codes = passes.group_norm(bfloat16, nn.GroupNorm(32, 320), to, silu=True, shift=torch.zeros(2, 320), frame=(1, 1))
    engine.conv2d(operands(30, 160, 3, 3), Window(groups=2))(codes, 0, torch.float16)


def _compile_instead_of_launching() -> list[tuple[str, int, str]]:
    """From now on a launch compiles for every capability; the list grows by kernel, capability and the instructions of
    the tensor cores."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    compiled: list[tuple[str, int, str]] = []

    def run(function: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        values = dict(zip(function.arg_names, args, strict=False)) | named
        signature, constants, attributes = {}, {}, {}
        for i, parameter in enumerate(function.params):
            name, value = parameter.name, values.pop(parameter.name)
            fixed = parameter.is_constexpr or value is None
            fixed |= isinstance(value, int) and value == 1 and not parameter.do_not_specialize
            signature[name] = "constexpr" if fixed else _type(value)
            if fixed:
                constants[name] = value
            elif hasattr(value, "data_ptr") or (not parameter.do_not_specialize and value % 16 == 0):
                attributes[(i,)] = [["tt.divisibility", 16]]
        for capability in CAPABILITIES:
            source = ASTSource(function, signature, constexprs=constants, attrs=attributes)
            kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=values)
            instructions = set(re.findall(r"mma\S*\.sync\.\S+", kernel.asm["ptx"]))
            compiled.append((function.__name__, capability, " ".join(instructions)))

    triton.JITFunction.run = run
    return compiled


def _type(value: Any) -> str:
    if hasattr(value, "data_ptr"):
        names = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "u8", "int8": "i8", "int32": "i32"}
        return "*" + names[str(value.dtype).removeprefix("torch.")]
    return "fp32" if isinstance(value, float) else "i32"


if __name__ == "__main__":
    found = _compile_instead_of_launching()
    _launch_everything()
    sys.stdout.write(json.dumps(found))
