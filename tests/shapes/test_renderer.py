"""The renderer's ground truth against its pixels."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from shapes.renderer import IMAGE_SIZE, render
from shapes.scene import Arrangement, Colour, Floor, Material, Scene, Shape, Size, Split, Thing, draw_scenes

HUES = {
    Colour.RED: 0.0, Colour.YELLOW: 52.0, Colour.GREEN: 124.0, Colour.CYAN: 184.0, Colour.BLUE: 232.0,
    Colour.PURPLE: 290.0,
}  # fmt: skip


def _scene(*things: Thing, arrangement: Arrangement = Arrangement.CENTRE, floor: Floor = Floor.LIGHT) -> Scene:
    return Scene(things, arrangement, floor, seed=4)


def _thing(shape: Shape = Shape.SPHERE, colour: Colour = Colour.RED, size: Size = Size.LARGE) -> Thing:
    return Thing(shape, colour, Material.MATTE, size)


def test_the_same_scene_gives_the_same_bytes() -> None:
    scene = draw_scenes(1, Split.TEST, 1)[0]
    assert render(scene)[0].tobytes() == render(scene)[0].tobytes()


@pytest.mark.parametrize("colour", Colour)
def test_the_pixels_of_an_object_have_its_hue(colour: Colour) -> None:
    for shape in Shape:
        picture, owner = render(_scene(_thing(shape, colour)))
        red, green, blue = np.median(picture[owner == 0], axis=0) / 255.0
        hue = 360.0 * colorsys.rgb_to_hsv(red, green, blue)[0]
        assert abs((hue - HUES[colour] + 180.0) % 360.0 - 180.0) < 15.0, shape


def test_every_object_is_seen_in_its_slot() -> None:
    for scene in draw_scenes(150, Split.TRAIN, 11):
        _, owner = render(scene)
        assert owner.shape == (IMAGE_SIZE, IMAGE_SIZE)
        for slot in range(len(scene.things)):
            assert (owner == slot).sum() >= 40, scene


def test_slots_are_where_the_arrangement_says() -> None:
    for scene in draw_scenes(150, Split.TRAIN, 12):
        _, owner = render(scene)
        rows, columns = np.indices(owner.shape)
        across = [columns[owner == slot].mean() for slot in range(len(scene.things))]
        down = [rows[owner == slot].max() for slot in range(len(scene.things))]
        middle = IMAGE_SIZE / 2
        match scene.arrangement:
            case Arrangement.LEFT:
                assert across[0] < middle - 15
            case Arrangement.RIGHT:
                assert across[0] > middle + 15
            case Arrangement.CENTRE:
                assert abs(across[0] - middle) < 15
            case Arrangement.BEHIND:
                assert down[0] < down[1]  # the far one stands higher in the picture
            case _:
                assert across == sorted(across)


def test_a_sphere_covers_the_area_that_projection_says() -> None:
    _, owner = render(_scene(_thing()))
    radius, distance, half_view = 0.84, 7.2, 0.305
    angular = radius / math.sqrt(distance**2 - radius**2)
    expected = math.pi * (angular / half_view * IMAGE_SIZE / 2) ** 2
    assert (owner == 0).sum() == pytest.approx(expected, rel=0.12)  # it stands a little off the optical axis


def test_large_is_larger_than_small() -> None:
    for shape in Shape:
        large, small = ((render(_scene(_thing(shape, size=size)))[1] == 0).sum() for size in (Size.LARGE, Size.SMALL))
        assert 1.8 < large / small < 3.2


def test_floors_differ_in_brightness_and_cast_shadows() -> None:
    means = {}
    for floor in Floor:
        picture, owner = render(_scene(_thing(), floor=floor))
        ground = picture[owner < 0].astype(float).mean(axis=1)
        means[floor] = np.median(ground)
    assert means[Floor.LIGHT] > means[Floor.DARK] + 100
    picture, owner = render(_scene(_thing()))
    ground = np.where(owner < 0, picture.mean(axis=2), 255.0)
    assert ground.min() < 0.6 * means[Floor.LIGHT]


def test_metal_has_a_highlight_that_matte_has_not() -> None:
    brightest = {}
    for material in Material:
        picture, owner = render(_scene(Thing(Shape.SPHERE, Colour.BLUE, material, Size.LARGE)))
        inner = binary_erosion(owner == 0, iterations=2)  # without the edge, where the floor shines in
        brightest[material] = picture[inner].min(axis=1).max()
    assert brightest[Material.METAL] > brightest[Material.MATTE] + 100
