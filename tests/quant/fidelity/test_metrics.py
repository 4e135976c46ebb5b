"""Metrics against scikit-image, closed forms and formulas written out, and what holds for every metric there is."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

import quant.fidelity.metrics
from quant.discovery import names
from quant.errors import EvaluationError, PictureMismatch
from quant.fidelity.backbone import Backbone, Backbones
from quant.fidelity.backbones.clip import ClipBackbone
from quant.fidelity.backbones.judge import JudgeBackbone
from quant.fidelity.metric import metric
from quant.fidelity.metrics import frechet, kid, latent_mse, psnr, ssim, trajectory
from quant.fidelity.pair import Pair
from quant.sampling.generation import Drawn
from quant.sampling.prompts import Prompt
from tests.support import tiny_backbones

PICTURES = 8
LEVELS = {"clean": 0.0, "mild": 0.2, "strong": 0.6}
ALL = [
    f"{name}:{backbone}" if backbone else name
    for name in names(quant.fidelity.metrics)
    for backbone in metric(name).traits.backbones or ("",)
    if backbone != "inception"  # once, below: it is slow
]
OF_SETS = [asked for asked in ALL if metric(asked).of_sets]
ABOUT_REFERENCE = [asked for asked in ALL if metric(asked).traits.identical is not None]


class Remembering(Backbones):
    """Backbones that see each tensor of pictures once."""

    def get(self, name: str) -> Backbone:
        known = name in self._loaded
        backbone = super().get(name)
        if not known:
            backbone.embed = functools.cache(backbone.embed)  # type: ignore[method-assign]
        return backbone


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Backbones:
    folder = tmp_path_factory.mktemp("backbones")
    tiny_backbones.save_judge(folder / "judge")
    tiny_backbones.save_clip(folder / "clip")
    tiny_backbones.save_weights(folder / "lpips_alex", tiny_backbones.alexnet_weights())
    tiny_backbones.save_weights(folder / "lpips_vgg", tiny_backbones.vgg16_weights())
    tiny_backbones.save_weights(folder / "inception", tiny_backbones.inception_weights())
    return Remembering(folder)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Drawn]:
    """The same pictures with noise of each of `LEVELS`; latents likewise."""
    generator = torch.Generator().manual_seed(0)
    side = tiny_backbones.SIDE
    values = torch.nn.functional.interpolate(torch.rand((PICTURES, 3, 8, 8), generator=generator), (side, side))
    latents = torch.randn((PICTURES, 3, 4, 8, 8), generator=generator)
    noise = torch.randn(values.shape, generator=generator), torch.randn(latents.shape, generator=generator)
    return {
        level: Drawn(latents + amount * noise[1], (values + amount * noise[0]).clamp(0.0, 1.0))
        for level, amount in LEVELS.items()
    }


MakePair = Callable[[str, str], Pair]


@pytest.fixture
def pair(drawn: dict[str, Drawn], backbones: Backbones) -> MakePair:
    """A pair of two levels; the prompts' attributes are what the judge sees in the clean pictures."""
    seen = cast(JudgeBackbone, backbones.get("judge")).read(drawn["clean"].values)
    prompts = [Prompt(str(i), "abcdefgh"[i] * (i + 1), attributes) for i, attributes in enumerate(seen)]
    return lambda reference, variant: Pair(drawn[reference], drawn[variant], prompts, backbones)


def _value(asked: str, pair: Pair) -> float:
    """One number: the distance, or the mean of the scores."""
    found = metric(asked)
    if found.of_sets:
        return float(found.module.distance(*pair.features(found.backbone)))
    scores = found.module.score(pair, found.backbone)
    assert scores.shape == (PICTURES,) and scores.dtype == torch.float32
    return float(scores.mean())


@pytest.mark.parametrize("asked", ABOUT_REFERENCE)
def test_identical_is_perfect_and_noise_makes_it_worse(asked: str, pair: MakePair) -> None:
    traits = metric(asked).traits
    perfect, mild, strong = (_value(asked, pair("clean", level)) for level in LEVELS)
    assert perfect == pytest.approx(traits.identical, abs=1e-6)
    if metric(asked).name == "kid":
        return  # unbiased, so eight pictures are too few for an order: the next test has more
    assert mild > strong if traits.better == "higher" else mild < strong
    assert perfect > mild if traits.better == "higher" else perfect < mild


def test_noise_makes_kid_worse() -> None:
    generator = torch.Generator().manual_seed(10)
    clean = torch.rand((400, 32), generator=generator)
    noise = torch.rand(clean.shape, generator=generator)  # of mean 0.5: noise moves features one way, as in pictures
    distances = [kid.distance(clean, clean + amount * noise) for amount in (0.0, *list(LEVELS.values())[1:], 1.0)]
    assert distances == sorted(distances) and distances[0] == 0.0 < distances[1]


@pytest.mark.parametrize("asked", ALL)
def test_symmetric_as_declared(asked: str, pair: MakePair) -> None:
    there, back = _value(asked, pair("clean", "strong")), _value(asked, pair("strong", "clean"))
    assert (there == pytest.approx(back, rel=1e-5)) == metric(asked).traits.symmetric


@pytest.mark.parametrize("asked", ALL)
def test_a_picture_of_nan_spoils_only_itself(asked: str, pair: MakePair) -> None:
    whole = pair("clean", "mild")
    broken = Drawn(whole.variant.trajectory.clone(), whole.variant.values.clone())
    broken.trajectory[0], broken.values[0] = math.nan, math.nan
    spoilt = Pair(whole.reference, broken, whole.prompts, whole.backbones)
    found = metric(asked)
    if found.of_sets:
        with pytest.raises(EvaluationError, match=r"1 of 8 pictures of the variant .* not finite"):
            found.module.distance(*spoilt.features(found.backbone))
        return
    scores, expected = (found.module.score(each, found.backbone) for each in (spoilt, whole))
    assert not scores[0].isfinite()
    torch.testing.assert_close(scores[1:], expected[1:])


def test_pictures_of_other_sizes_or_counts_are_refused(drawn: dict[str, Drawn], backbones: Backbones) -> None:
    first = drawn["clean"]
    prompts = [Prompt("", "a")] * PICTURES
    for values in (first.values[:, :, :-8], first.values[1:]):
        with pytest.raises(PictureMismatch, match="same size and number"):
            Pair(first, Drawn(first.trajectory, values), prompts, backbones)
    with pytest.raises(PictureMismatch, match="same size and number"):
        Pair(first, first, prompts[1:], backbones)


@pytest.mark.parametrize(
    ("asked", "side", "says"),
    [
        ("image_cosine", 40, "judge reads"),
        ("prompt_accuracy", 40, "judge reads"),
        ("lpips", 30, "too small for LPIPS"),
        ("ssim", 10, "11 x 11 and more"),
    ],
)
def test_sizes_that_a_metric_does_not_read_are_refused(asked: str, side: int, says: str, backbones: Backbones) -> None:
    small = Drawn(torch.zeros(1, 1, 4, 3, 3), torch.zeros(1, 3, side, side))
    found = metric(asked)
    with pytest.raises(PictureMismatch, match=says):
        found.module.score(Pair(small, small, [Prompt("", "a")], backbones), found.backbone)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (64, 48), (17, 101), (128, 128)])
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_psnr_and_ssim_are_those_of_scikit_image(height: int, width: int, noise: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(height * width)
    ramp = np.linspace(0.0, 1.0, width) * np.linspace(1.0, 0.2, height)[:, None]
    clean = np.stack([np.broadcast_to(ramp, (3, height, width)), rng.random((3, height, width))]).astype(np.float32)
    noisy = np.clip(clean + noise * rng.standard_normal(clean.shape), 0.0, 1.0).astype(np.float32)
    empty = torch.zeros(2, 1, 1, 1, 1)
    pair = Pair(
        Drawn(empty, torch.tensor(clean)),
        Drawn(empty, torch.tensor(noisy)),
        [Prompt("", "")] * 2,
        Backbones(tmp_path),
    )
    ratios, similarities = psnr.score(pair), ssim.score(pair)
    for i, (a, b) in enumerate(zip(clean.astype(np.float64), noisy.astype(np.float64), strict=True)):
        similarity = structural_similarity(
            a, b, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(ratios[i]) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0), abs=1e-4)
        assert float(similarities[i]) == pytest.approx(similarity, abs=1e-4)
        assert float(similarities[i]) == pytest.approx(_similarity_by_torchmetrics(a, b), abs=1e-6)


def _similarity_by_torchmetrics(a: np.ndarray, b: np.ndarray) -> float:
    """Its map, without the mirrored border that its own mean includes."""
    _, places = structural_similarity_index_measure(
        torch.tensor(a)[None], torch.tensor(b)[None], data_range=1.0, return_full_image=True
    )
    return float(places[..., 5:-5, 5:-5].mean())


def test_latent_mse_is_of_the_last_step(pair: MakePair) -> None:
    both = pair("clean", "mild")
    error = (both.reference.trajectory[:, -1] - both.variant.trajectory[:, -1]).double().numpy()
    np.testing.assert_allclose(latent_mse.score(both).numpy(), (error**2).mean(axis=(1, 2, 3)), rtol=1e-5)


def test_trajectory_is_relative_to_the_reference_at_every_step(backbones: Backbones) -> None:
    reference = torch.full((2, 3, 4, 2, 2), 2.0)
    factors = torch.tensor([[1.0, 1.02, 1.06], [0.98, 0.99, 1.0]]).view(2, 3, 1, 1, 1)
    values = torch.zeros(2, 3, 8, 8)
    both = Pair(Drawn(reference, values), Drawn(reference * factors, values), [Prompt("", "")] * 2, backbones)
    wanted = torch.tensor([[0.0, 0.02, 0.06], [0.02, 0.01, 0.0]])
    torch.testing.assert_close(trajectory.distances(both), wanted, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(trajectory.score(both), torch.tensor([0.08 / 3, 0.01]), atol=1e-6, rtol=0.0)


def test_the_first_diverging_step_counts_from_one() -> None:
    limit = trajectory.DIVERGED
    rows = [[0.06, 0.0, 0.0], [0.01, 0.02, 0.06], [0.0, limit, 0.04], [0.0, math.nan, 0.0], [0.0, 0.07, 0.01]]
    first = trajectory.first_diverging_step(torch.tensor(rows))
    torch.testing.assert_close(first, torch.tensor([1.0, 3.0, math.nan, 2.0, 2.0]), equal_nan=True)


def test_trajectories_of_different_lengths_are_refused(drawn: dict[str, Drawn], backbones: Backbones) -> None:
    first = drawn["clean"]
    shorter = Drawn(first.trajectory[:, 1:], first.values)
    with pytest.raises(PictureMismatch, match="same sampler, steps and size"):
        trajectory.score(Pair(first, shorter, [Prompt("", "a")] * PICTURES, backbones))


def test_frechet_of_gaussians_is_the_closed_form() -> None:
    rng = np.random.default_rng(3)
    means = rng.normal(size=(2, 6))
    roots = rng.normal(size=(2, 6, 6))
    covariances = roots @ roots.transpose(0, 2, 1)
    cross = np.real(sqrtm(covariances[0] @ covariances[1]))
    wanted = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2.0 * cross)
    sets = [
        torch.tensor(rng.standard_normal((60_000, 6)) @ root.T + mean).float()
        for mean, root in zip(means, roots, strict=True)
    ]
    assert frechet.distance(sets[0], sets[1]) == pytest.approx(wanted, rel=0.01)


def test_frechet_in_one_dimension_is_the_difference_of_means_and_deviations() -> None:
    first, second = torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([[5.0], [6.0], [7.0]])
    assert frechet.distance(first, second) == pytest.approx((6.0 - 2.0) ** 2 + (2.0 - 1.0) ** 2)


class _Features(torch.nn.Module):
    """Takes features for pictures, so that torchmetrics computes the distance alone."""

    num_features = 5

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_frechet_of_samples_is_that_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(4)
    first = torch.randn((40, 5), generator=generator)
    second = torch.randn((50, 5), generator=generator) @ torch.randn((5, 5), generator=generator) + 0.5
    theirs = FrechetInceptionDistance(feature=_Features(), normalize=True).set_dtype(torch.float64)
    theirs.update(first.double(), real=True)
    theirs.update(second.double(), real=False)
    assert frechet.distance(first, second) == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_frechet_holds_for_fewer_pictures_than_features() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(6, 32)), rng.normal(size=(9, 32)) * 2.0
    covariances = [np.cov(each, rowvar=False) for each in (first, second)]
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0.0)).sum()
    wanted = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1]) - 2.0 * root
    assert frechet.distance(torch.tensor(first), torch.tensor(second)) == pytest.approx(wanted, rel=1e-5)


def test_frechet_of_a_set_with_itself_is_nothing() -> None:
    features = 1e3 * torch.randn((20, 64), generator=torch.Generator().manual_seed(6))
    assert 0.0 <= frechet.distance(features, features) < 1e-6
    assert 0.0 <= frechet.distance(features, features.flip(0)) < 1e-6


@pytest.mark.parametrize("module", [frechet, kid])
def test_sets_that_have_no_distance_are_refused(module: object) -> None:
    distance = cast(Callable[[Tensor, Tensor], float], module.distance)  # type: ignore[attr-defined]
    good, endless = torch.rand(3, 4), torch.rand(3, 4)
    endless[1, 2] = math.inf
    with pytest.raises(EvaluationError, match="at least 2"):
        distance(good[:1], good[:1])
    with pytest.raises(EvaluationError, match=r"1 of 3 pictures of the reference .* not finite"):
        distance(endless, good)
    with pytest.raises(EvaluationError, match="different models"):
        distance(good, good[:, :3])


def test_kid_is_the_formula_written_out() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)) + 0.5

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 3 + 1.0) ** 3)

    others = [(i, j) for i in range(5) for j in range(5) if i != j]
    same = sum(kernel(z[i], z[j]) for z in (x, y) for i, j in others) / 20
    across = sum(kernel(x[i], y[j]) for i, j in others) / 20
    assert kid.distance(torch.tensor(x), torch.tensor(y)) == pytest.approx(same - 2.0 * across, rel=1e-9)
    fewer = sum(kernel(y[i], y[j]) for i in range(3) for j in range(3) if i != j) / 6
    same = sum(kernel(x[i], x[j]) for i, j in others) / 20 + fewer
    across = sum(kernel(a, b) for a in x for b in y[:3]) / 15
    assert kid.distance(torch.tensor(x), torch.tensor(y[:3])) == pytest.approx(same - 2.0 * across, rel=1e-9)


def test_kid_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(8)
    draws = torch.randn((2, 600, 12, 4), generator=generator)
    values = torch.tensor([kid.distance(a, b) for a, b in zip(*draws, strict=True)])
    assert abs(float(values.mean())) < 4.0 * float(values.std()) / 600**0.5
    assert (values < 0.0).any()


def test_kid_of_pairs_with_the_same_noise_stays_near_zero() -> None:
    generator = torch.Generator().manual_seed(8)
    features = torch.randn((40, 64), generator=generator)
    nearly = features + 1e-3 * torch.randn(features.shape, generator=generator)
    assert abs(kid.distance(features, nearly)) < 1e-3


def test_clip_score_is_the_logit_of_transformers_without_its_scale(backbones: Backbones) -> None:
    clip = cast(ClipBackbone, backbones.get("clip"))
    values = torch.rand((8, 3, 32, 32), generator=torch.Generator().manual_seed(9))
    texts = ["a red box", "b", "zz", "two cones", "q w e", "ring", "m", "xy"]
    drawn = Drawn(torch.zeros(8, 1, 1, 1, 1), values)
    other = Drawn(drawn.trajectory, 1.0 - values)
    scores = metric("clip_score").module.score(Pair(other, drawn, [Prompt("", t) for t in texts], backbones))
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    tokens = clip.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        pixels = (values - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        logits = clip.model(pixel_values=pixels, **tokens).logits_per_image
        cosines = logits.diagonal() / clip.model.logit_scale.exp()
    torch.testing.assert_close(scores, 100.0 * cosines.clamp(min=0.0), rtol=1e-4, atol=1e-4)
    assert cosines.min() < 0.0 < cosines.max()


def test_prompt_accuracy_is_the_share_of_right_answers(backbones: Backbones, drawn: dict[str, Drawn]) -> None:
    first = drawn["clean"]
    seen = cast(JudgeBackbone, backbones.get("judge")).read(first.values)
    half = {"floor": seen[0]["floor"], "wall": "no such word"}
    prompts = [Prompt("", "", half), Prompt("", ""), *(Prompt("", "", each) for each in seen[2:])]
    scores = metric("prompt_accuracy").module.score(Pair(first, first, prompts, backbones))
    torch.testing.assert_close(scores, torch.tensor([0.5, math.nan, *[1.0] * 6]), equal_nan=True)


def test_inception_is_a_backbone_of_cosine_and_distances(backbones: Backbones, drawn: dict[str, Drawn]) -> None:
    clean, strong = (Drawn(each.trajectory[:2], each.values[:2]) for each in (drawn["clean"], drawn["strong"]))
    both = Pair(clean, strong, [Prompt("", "")] * 2, backbones)
    features = both.features("inception")
    assert features[0].shape == features[1].shape == (2, 2048)
    cosines = metric("image_cosine:inception").module.score(both, "inception")
    assert cosines.shape == (2,) and (cosines < 0.9999).all()
    assert frechet.distance(features[0], features[1]) > frechet.distance(features[0], features[0])
    assert kid.distance(features[0], features[1]) > kid.distance(features[0], features[0])
