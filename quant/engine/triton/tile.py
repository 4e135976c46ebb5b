"""How a product is cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass

from quant.engine.triton.launch import ceil_div, power_of_two

SHAPES = ((128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (16, 32))
"""Rows and columns. Of 64 rows on, Hopper's instructions for a group of warps are used."""
DEPTHS = (128, 64, 32)


@dataclass(frozen=True)
class Tile:
    """One program computes `rows` x `columns` sums, `depth` products of each at a time; `stages` loads overlap."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    @property
    def constants(self) -> dict[str, int]:
        """The kernel's compile-time arguments."""
        return {
            "BLOCK_M": self.rows, "BLOCK_N": self.columns, "BLOCK_K": self.depth,
            "num_warps": self.warps, "num_stages": self.stages,
        }  # fmt: skip


def choose(rows: int, columns: int, depth: int, groups: int, multiprocessors: int) -> Tile:
    """The largest tile that gives every multiprocessor work, for `groups` products [rows, depth] by [depth, columns].

    Fixed rules instead of measurements at the first call: a service starts in the time that compiling takes."""
    shape = next((s for s in SHAPES if _programs(s, rows, columns) * groups >= multiprocessors), SHAPES[-1])
    height = max(min(shape[0], power_of_two(rows)), 16)
    width = max(min(shape[1], power_of_two(columns)), 16)
    return tile_of(height, width, _depth(depth))


def tile_of(rows: int, columns: int, depth: int) -> Tile:
    """The tile of these sizes: more warps for many sums, fewer stages where they would not fit the shared memory."""
    stages = 3 if rows * columns >= 128 * 64 and depth == 128 else 4
    return Tile(rows, columns, depth, 8 if rows * columns >= 128 * 128 else 4, stages)


def _programs(shape: tuple[int, int], rows: int, columns: int) -> int:
    return ceil_div(rows, shape[0]) * ceil_div(columns, shape[1])


def _depth(channels: int) -> int:
    """Long blocks where the last one is full."""
    if channels % DEPTHS[0] == 0:
        return DEPTHS[0]
    return DEPTHS[1] if channels > DEPTHS[2] else DEPTHS[2]
