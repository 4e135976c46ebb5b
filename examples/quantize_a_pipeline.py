"""Quantize a pipeline, save it, load it with plain diffusers, and say how near its pictures are.

python examples/quantize_a_pipeline.py models/shapes-sd data/my-variant
"""

import sys

from diffusers import DiffusionPipeline

import facsimile

model, folder = sys.argv[1:]
reference = DiffusionPipeline.from_pretrained(model)
variant = facsimile.quantize(reference, recipe="minmax-w8a8", prompts=["a red cube", "a blue ball on the left"])
facsimile.save(variant, folder)
again = DiffusionPipeline.from_pretrained(folder)  # `import facsimile` registered the format
found = facsimile.compare(reference, again, prompts=["a green cone", "a large yellow torus"])
print(f"psnr {found['psnr'].mean:.1f} dB, ssim {found['ssim'].mean:.4f}")
