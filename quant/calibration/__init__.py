"""Running data through a reference to fix quantization parameters."""
