"""Sphere-traced pictures of scenes, compiled with numba, with the object seen at every pixel as ground truth."""

from __future__ import annotations

import math
import random

import numpy as np
from numba import njit
from numpy.typing import NDArray

from shapes.scene import Arrangement, Colour, Floor, Material, Scene, Shape, Size

IMAGE_SIZE = 128
"""Pixels on a side."""

_COLOURS = {
    Colour.RED: (0.86, 0.08, 0.08),
    Colour.YELLOW: (0.93, 0.80, 0.06),
    Colour.GREEN: (0.09, 0.65, 0.13),
    Colour.CYAN: (0.05, 0.75, 0.80),
    Colour.BLUE: (0.09, 0.20, 0.86),
    Colour.PURPLE: (0.62, 0.10, 0.72),
}
_FLOORS = {Floor.LIGHT: (0.80, 0.78, 0.75), Floor.DARK: (0.17, 0.18, 0.21)}
_BACKGROUNDS = {Floor.LIGHT: (0.90, 0.93, 0.97), Floor.DARK: (0.05, 0.06, 0.09)}
_RADII = {Size.SMALL: 0.54, Size.LARGE: 0.84}
_SUPERSAMPLING = 2


@njit(cache=True, fastmath=True)
def _distance_to_solid(shape: int, x: float, y: float, z: float, r: float) -> float:
    """Signed distance from a point, relative to the solid's centre (at height r), to a solid of radius r."""
    if shape == 0:  # sphere
        return math.sqrt(x * x + y * y + z * z) - r
    if shape == 1:  # cube, edges rounded by 6 %
        half, edge = 0.76 * r, 0.06 * r
        y += r - half - edge
        qx, qy, qz = abs(x) - half, abs(y) - half, abs(z) - half
        outside = math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2 + max(qz, 0.0) ** 2)
        return outside + min(max(qx, max(qy, qz)), 0.0) - edge
    rho = math.sqrt(x * x + z * z)
    if shape == 2:  # cylinder
        qx, qy = rho - 0.72 * r, abs(y) - r
        return min(max(qx, qy), 0.0) + math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2)
    if shape == 3:  # cone: base radius r, height 2 r; the slope's outward normal is (2, 1) / sqrt 5
        slope = (2.0 * rho + (y - r)) / math.sqrt(5.0)
        return max(slope, -y - r)
    y += r - 0.34 * r  # torus lying on the floor
    q = rho - 0.66 * r
    return math.sqrt(q * q + y * y) - 0.34 * r


@njit(cache=True, fastmath=True)
def _distance(solids: NDArray, index: int, px: float, py: float, pz: float) -> float:
    s = solids[index]
    x, y, z = px - s[1], py - s[4], pz - s[2]
    return _distance_to_solid(int(s[0]), s[5] * x + s[6] * z, y, -s[6] * x + s[5] * z, s[4])


@njit(cache=True, fastmath=True)
def _trace(solids: NDArray, o: tuple, d: tuple, near: float, far: float) -> tuple:
    """The nearest solid along a ray: (index or -1, distance, the smallest clearance / distance on the way)."""
    best, hit, clearance = far, -1, 1.0
    for i in range(solids.shape[0]):
        s = solids[i]
        cx, cy, cz = o[0] - s[1], o[1] - s[4], o[2] - s[2]
        bound = 1.5 * s[4]
        b = cx * d[0] + cy * d[1] + cz * d[2]
        discriminant = b * b - (cx * cx + cy * cy + cz * cz) + bound * bound
        if discriminant <= 0.0:
            continue
        t, end = max(near, -b - math.sqrt(discriminant)), min(best, -b + math.sqrt(discriminant))
        for _ in range(64):
            if t >= end:
                break
            gap = _distance(solids, i, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
            if gap < 0.0015:
                best, hit, clearance = t, i, 0.0
                break
            clearance = min(clearance, 9.0 * gap / t)
            t += 0.9 * gap
    return hit, best, clearance


@njit(cache=True, fastmath=True)
def _floor_tone(x: float, z: float, base: NDArray, background: NDArray, channel: int) -> float:
    fade = min(max((-z - 1.0) / 6.0, 0.0), 1.0)
    return base[channel] * (1.0 - fade) + background[channel] * fade


@njit(cache=True, fastmath=True)
def _shade(
    solids: NDArray, o: tuple, d: tuple, light: NDArray, base: NDArray, background: NDArray, out: NDArray
) -> int:
    """Writes the colour seen along one ray to `out`; returns the index of the solid seen, -1 for none."""
    floor_t = -o[1] / d[1] if d[1] < -1e-4 else 1e9
    hit, t, _ = _trace(solids, o, d, 0.5, min(floor_t, 40.0))
    if hit < 0:
        if floor_t > 40.0:
            for c in range(3):
                out[c] = background[c]
            return -1
        p = (o[0] + floor_t * d[0], 0.001, o[2] + floor_t * d[2])
        _, _, lit = _trace(solids, p, (light[0], light[1], light[2]), 0.02, 8.0)
        contact = 1.0
        for i in range(solids.shape[0]):
            contact = min(contact, 0.35 + 0.65 * min(max(_distance(solids, i, p[0], p[1], p[2]) / 0.4, 0.0), 1.0))
        for c in range(3):
            out[c] = _floor_tone(p[0], p[2], base, background, c) * (0.42 + 0.58 * lit) * (0.5 + 0.5 * contact)
        return -1
    s = solids[hit]
    px, py, pz = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
    e = 0.002
    nx = _distance(solids, hit, px + e, py, pz) - _distance(solids, hit, px - e, py, pz)
    ny = _distance(solids, hit, px, py + e, pz) - _distance(solids, hit, px, py - e, pz)
    nz = _distance(solids, hit, px, py, pz + e) - _distance(solids, hit, px, py, pz - e)
    length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
    nx, ny, nz = nx / length, ny / length, nz / length
    p = (px + 0.01 * nx, py + 0.01 * ny, pz + 0.01 * nz)
    _, _, lit = _trace(solids, p, (light[0], light[1], light[2]), 0.03, 8.0)
    facing = d[0] * nx + d[1] * ny + d[2] * nz
    rx, ry, rz = d[0] - 2 * facing * nx, d[1] - 2 * facing * ny, d[2] - 2 * facing * nz
    glint = max(rx * light[0] + ry * light[1] + rz * light[2], 0.0)
    diffuse = max(nx * light[0] + ny * light[1] + nz * light[2], 0.0) * lit
    if s[3] < 0.5:  # matte
        for c in range(3):
            out[c] = s[7 + c] * (0.34 + 0.12 * ny + 0.68 * diffuse)
        return hit
    # metal: a tinted mirror of a two-tone studio, with a sharp highlight
    sky = min(max(0.5 + 5.0 * (ry - 0.15), 0.0), 1.0)
    mirrored, _, _ = _trace(solids, p, (rx, ry, rz), 0.03, 12.0)
    for c in range(3):
        if mirrored >= 0 and mirrored != hit:
            seen = 0.55 * solids[mirrored][7 + c]
        else:
            seen = 0.10 + 0.25 * base[c] + sky * (1.15 - 0.25 * base[c])
        out[c] = s[7 + c] * (0.10 + 0.95 * seen + 0.15 * diffuse) + 0.95 * glint**60 * lit + 0.20 * sky
    return hit


@njit(cache=True, fastmath=True)
def _draw(
    solids: NDArray, light: NDArray, base: NDArray, background: NDArray, camera: NDArray, size: int, samples: int
) -> tuple:
    picture = np.zeros((size, size, 3), dtype=np.float32)
    owner = np.full((size, size), -1, dtype=np.int8)
    colour = np.zeros(3)
    sin, cos = math.sin(camera[2]), math.cos(camera[2])
    o = (0.0, camera[0] * sin + 0.55, camera[0] * cos)
    for row in range(size):
        for col in range(size):
            for k in range(samples * samples):
                u = (2.0 * (col + (k % samples + 0.5) / samples) / size - 1.0) * camera[1]
                v = (1.0 - 2.0 * (row + (k // samples + 0.5) / samples) / size) * camera[1]
                length = math.sqrt(u * u + v * v + 1.0)
                d = (u / length, (v * cos - sin) / length, (-cos - v * sin) / length)
                seen = _shade(solids, o, d, light, base, background, colour)
                if k == 0 or seen >= 0:
                    owner[row, col] = seen
                for c in range(3):
                    picture[row, col, c] += min(max(colour[c], 0.0), 1.0)
    picture /= samples * samples
    return picture, owner


def _places(scene: Scene, rng: random.Random) -> list[tuple[float, float]]:
    """(x, z) of every object on the floor, in slot order; z grows towards the camera."""

    def jitter(spread: float) -> float:
        return rng.uniform(-spread, spread)

    match scene.arrangement:
        case Arrangement.LEFT:
            return [(-1.12 + jitter(0.16), jitter(0.25))]
        case Arrangement.CENTRE:
            return [(jitter(0.16), jitter(0.25))]
        case Arrangement.RIGHT:
            return [(1.12 + jitter(0.16), jitter(0.25))]
        case Arrangement.BESIDE:
            depth = jitter(0.2)
            return [(-1.0 + jitter(0.12), depth + jitter(0.12)), (1.0 + jitter(0.12), depth + jitter(0.12))]
        case Arrangement.BEHIND:
            side = rng.choice([-1.0, 1.0])
            return [
                (side * (0.52 + jitter(0.1)), -1.45 + jitter(0.15)),
                (-side * (0.52 + jitter(0.1)), 0.75 + jitter(0.15)),
            ]
        case _:
            depth = jitter(0.2)
            return [(x + jitter(0.06), depth + jitter(0.1)) for x in (-1.32, 0.0, 1.32)]


def render(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """The picture of `scene`, uint8 [128, 128, 3], and the slot of the object seen at each pixel, int8 [128, 128],
    -1 where none is. The same scene gives the same bytes."""
    rng = random.Random(scene.seed)
    rows = []
    for thing, (x, z) in zip(scene.things, _places(scene, rng), strict=True):
        turn = rng.uniform(0.0, math.pi / 2)
        shape, metal = [*Shape].index(thing.shape), float(thing.material is Material.METAL)
        rows.append([shape, x, z, metal, _RADII[thing.size], math.cos(turn), math.sin(turn), *_COLOURS[thing.colour]])
    light = np.array([-0.55 + rng.uniform(-0.15, 0.15), 1.0, 0.55 + rng.uniform(-0.15, 0.15)])
    camera = np.array([7.2, 0.305, math.radians(26.0)])  # distance, tangent of half the view angle, elevation
    picture, owner = _draw(
        np.array(rows, dtype=np.float64),
        light / np.linalg.norm(light),
        np.array(_FLOORS[scene.floor]),
        np.array(_BACKGROUNDS[scene.floor]),
        camera,
        IMAGE_SIZE,
        _SUPERSAMPLING,
    )
    return np.round(picture * 255.0).astype(np.uint8), owner
