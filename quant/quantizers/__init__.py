"""Quantizers: from floats to integer codes and back."""
