"""QDiffBench (arXiv 2311.06322): how close the pictures of quantized variants are to the reference's, over whole prompt
sets and on the same noise, beside the floors that say what the figures mean."""
