"""Integer kernels: one engine per file, chosen once by `quant.engine.selection.default_engine`."""
