"""Min-max: the range ever seen is the range quantized; weights round to the nearest level.

Per-tensor activations with one range for all timesteps or one per group of them, per-channel symmetric weights: the
baseline that every other method is measured against."""

from contract.stages import EveryStep, ObservedRanges, Stages

STAGES = Stages(inputs=EveryStep(prompts=32), ranges=ObservedRanges(kind="minmax", observed="reference"))
