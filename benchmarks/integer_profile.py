"""Which operators compute inside a variant's quantized layers, and which outside?

`python -m benchmarks.integer_profile shapes-sd --variant w8a8-minmax`"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import denoiser_of, load_variant
from quant.cli.options import VARIANTS, AsJson, Model, VariantFolders, VariantName, machine, stdout, variant_folder

MARK = "quantized-layer"
FLOAT_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "convolution", "conv2d")
"""Names of torch's operators (after `aten::` and prefixes such as `mkldnn_`) that multiply floats."""


def multiplies_floats(operator: str) -> bool:
    """Whether an operator is a floating-point matrix product or convolution of torch."""
    name = operator.removeprefix("aten::").removeprefix("_").removeprefix("mkldnn_")
    return operator.startswith("aten::") and name in FLOAT_PRODUCTS


def operators_by_place(denoiser: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Counter[str]]:
    """One forward pass: how often each operator ran `inside` the products of quantized layers and `outside` of them."""
    layers = quantized_layers(denoiser).values()
    for layer in layers:
        layer.multiply = _marked(layer.multiply)  # type: ignore[method-assign]
    with torch.no_grad():
        denoiser(*inputs)  # packs the weights
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            denoiser(*inputs)
    for layer in layers:
        del layer.multiply
    counts: dict[str, Counter[str]] = {"inside": Counter(), "outside": Counter()}
    for event in recorded.events():
        if event.name != MARK:
            counts["inside" if _within(event) else "outside"][event.name] += 1
    return counts


def _marked(multiply: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def marked(*args: Any, **kwargs: Any) -> Tensor:
        with record_function(MARK):
            return multiply(*args, **kwargs)

    return marked


def _within(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    while parent is not None:
        if parent.name == MARK:
            return True
        parent = parent.cpu_parent
    return False


def main(
    model: Model,
    variant: Annotated[str, VariantName],
    batch: Annotated[int, typer.Option(min=1, help="latents in the step; 2 is one picture with guidance")] = 2,
    variant_folders: VariantFolders = VARIANTS,
    as_json: AsJson = False,
) -> None:
    """Profile one step of a variant's denoiser, batch 2 for guidance."""
    denoiser = denoiser_of(load_variant(variant_folder(model, variant, variant_folders)))
    size, width = denoiser.config.sample_size, denoiser.config.cross_attention_dim
    noisy = torch.randn(batch, denoiser.config.in_channels, size, size)
    counts = operators_by_place(denoiser, (noisy, torch.tensor(500), torch.randn(batch, 48, width)))
    float_inside = {name: n for name, n in counts["inside"].items() if multiplies_floats(name)}
    if as_json:
        stdout.print_json(json.dumps({"machine": machine(), "float_products_inside": float_inside, **counts}))
        return
    table = Table("operator", "inside quantized layers", "outside", title=f"{model}:{variant}, one step, batch {batch}")
    shown = [n for n in counts["inside"] | counts["outside"] if n.startswith("onednn::") or multiplies_floats(n)]
    for name in sorted(shown):
        table.add_row(name, str(counts["inside"][name]), str(counts["outside"][name]))
    stdout.print(table)
    stdout.print(f"floating-point products inside quantized layers: {sum(float_inside.values())}")


if __name__ == "__main__":
    typer.run(main)
