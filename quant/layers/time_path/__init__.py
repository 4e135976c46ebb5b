"""The time path of a denoiser computed before it is needed: blocks look up what they know of the time.

Sinusoid, embedding and the projections of the blocks are a function of the timestep, which takes few values. Where
nothing else enters, tables for a fixed schedule replace the layers ("Efficiency Meets Fidelity", arXiv 2412.06661: time
information precalculation; the cache of TFMQ-DM, arXiv 2407.19547). Where pooled texts, classes or the like enter, the
layers stay, and rows are made anew for every request. A timestep is looked up exactly, never interpolated."""
