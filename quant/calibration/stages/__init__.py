"""The stages of quantization, one file each: `apply(bench)` does what the method and the recipe chose."""
