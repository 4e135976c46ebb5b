"""`python -m quant`: quantize a model, draw pictures, compare a variant with its reference, report the engine."""

from __future__ import annotations

from quant.cli import app

app()
