"""Quantized layers: drop-in replacements of torch.nn ones that multiply integers."""
