"""Training a quantized denoiser as a whole against its reference."""
