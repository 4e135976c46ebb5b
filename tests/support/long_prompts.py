"""A prompt far longer than any text encoder takes, of words that occur nowhere else."""

from __future__ import annotations

import random

_RANDOM = random.Random(5)
WORDS = ["".join(_RANDOM.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(200)]
LONG = " ".join(WORDS)
