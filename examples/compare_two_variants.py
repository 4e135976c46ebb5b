"""Which of two variants of a model is nearer to it? The intervals say whether the difference means anything.

python examples/compare_two_variants.py models/shapes-sd \
    models/variants/shapes-sd/w8a8-minmax models/variants/shapes-sd/w4a8-minmax
"""

import sys

import facsimile

PROMPTS = ["a red cube", "a blue ball on the left", "a green cone", "a large yellow torus"]

model, *folders = sys.argv[1:]
reference = facsimile.load(model)
for folder in folders:
    variant = facsimile.load(folder)  # checked against its card
    ssim = facsimile.compare(reference, variant, PROMPTS, num_images=4)["ssim"]
    low, high = ssim.ci95
    print(f"{folder}: ssim {ssim.mean:.4f} ({low:.4f} to {high:.4f}), {ssim.count} pictures")
