"""How near the pictures of a variant are to its reference's, on the same noise (QDiffBench, arXiv 2311.06322).

From the bottom to the top: `metrics` look at a `pair` through `backbones`; a `study` has every arm draw every prompt
and measures it; `statistics` say what that means, beside the `floors`. Three things stand on these: the `comparison` of
one request, the `consistency` that a card reports, and the `evaluation` of whole prompt sets, whose `document` a
`report` shows."""
