"""`models`: which models there are, and which variants of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Column, Table

from contract.card import Card
from contract.catalogue import ModelDescription, read_models
from quant.checkpoints.card_file import read_card
from quant.cli.options import (
    MODELS,
    VARIANTS,
    AsJson,
    Models,
    VariantFolders,
    print_json,
    stdout,
    variant_folder,
    variant_names,
)


def models(models: Models = MODELS, variant_folders: VariantFolders = VARIANTS, as_json: AsJson = False) -> None:
    """List the models of the models file, and their variants with the psnr that their cards report."""
    listed = {name: _told(name, each, variant_folders) for name, each in read_models(models).items()}
    if as_json:
        print_json(listed)
        return
    columns = ("model", "family", "dtype", "size", "variant", "psnr, dB")
    table = Table(*(Column(name, no_wrap=True) for name in columns))
    for name, told in listed.items():
        size = f"{told['width']} x {told['height']}"
        table.add_row(name, told["family"], told["dtype"], size, "reference", "")
        for variant, psnr in told["variants"].items():
            table.add_row("", "", "", "", variant, _cell(psnr))
    stdout.print(table)


def _told(name: str, model: ModelDescription, folders: list[Path]) -> dict[str, Any]:
    variants = {each: _psnr(read_card(variant_folder(name, each, folders))) for each in variant_names(name, folders)}
    return model.model_dump(mode="json", include={"family", "dtype", "width", "height"}) | {"variants": variants}


def _psnr(card: Card) -> dict[str, Any] | None:
    found = card.report.metrics.get("psnr")
    return None if found is None else found.model_dump(mode="json")


def _cell(psnr: dict[str, Any] | None) -> str:
    return "" if psnr is None or psnr["mean"] is None else f"{psnr['mean']:.2f}"
