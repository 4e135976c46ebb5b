"""Optimizing the rounding of weights, and scales, unit by unit against the reference."""
