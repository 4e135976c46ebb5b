"""Integer tensors as they lie in memory and on disk."""
