"""`python -m quant`: quantize a model, draw pictures, compare a variant with its reference."""

from __future__ import annotations

from quant.cli import app

app()
