"""Quantized denoisers on disk and in diffusers: how they are laid out, converted, saved, checked and loaded."""
