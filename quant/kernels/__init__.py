"""Integer kernels: one engine per file, chosen once by `quant.kernels.selection.default_engine`."""
