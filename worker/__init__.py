"""The worker: takes jobs from the store, has quant do them, writes the results back. It speaks no HTTP."""
