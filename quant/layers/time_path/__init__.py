"""The time path of a UNet computed before it is needed: residual blocks look their projections up by timestep.

Sinusoid, embedding and the projections of the blocks are a function of the timestep, which takes few values. Without
other conditioning, tables for a fixed schedule replace the layers ("Efficiency Meets Fidelity", arXiv 2412.06661: time
information precalculation; the cache of TFMQ-DM, arXiv 2407.19547). Where the embedding also holds pooled texts or the
like, the layers stay, and rows are made anew for every request. A timestep is looked up exactly, never interpolated."""
