"""Integer kernels: one engine per file, chosen once by `quant.kernels.engine.default_engine`."""
