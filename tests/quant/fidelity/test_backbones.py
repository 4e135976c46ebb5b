"""Backbones against networks written out a second time, published counts and shapes, and what is said when one is not
there or is another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from safetensors.torch import save_file
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import lpips as torchmetrics_lpips
from transformers import CLIPImageProcessorPil

from quant.errors import BackboneMissing, ModelError
from quant.fidelity.backbone import Backbones
from quant.fidelity.backbones import clip as clip_backbone
from quant.fidelity.backbones import judge as judge_backbone
from quant.fidelity.backbones.clip import ClipBackbone
from quant.fidelity.backbones.inception import InceptionBackbone
from quant.fidelity.metrics import lpips
from quant.fidelity.networks.inception import InceptionNet
from quant.fidelity.networks.judge import load_judge
from quant.fidelity.networks.lpips import LpipsNet
from quant.fidelity.pair import Pair
from quant.sampling.generation import Drawn
from quant.sampling.prompts import Prompt
from tests.support import tiny_backbones

ALEX = "alexnet-owt-7be5be79.pth"
VGG = "vgg16-397923af.pth"
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub keeps its files; neither it nor the hub's cache knows anything."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(clip_backbone, "HUB_ID", "nobody/no-such-clip")
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    return tmp_path / "torch/hub/checkpoints"


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("lpips_alex", [ALEX, "torchvision", "checkpoints"]),
        ("lpips_vgg", [VGG, "torchvision", "checkpoints"]),
        ("inception", [INCEPTION, "pytorch-fid", "checkpoints"]),
        ("clip", ["model.safetensors", "nobody/no-such-clip", "tokenizer", "hf download"]),
    ],
)
def test_a_missing_backbone_says_what_to_put_where(name: str, named: list[str], tmp_path: Path) -> None:
    with pytest.raises(BackboneMissing) as raised:
        Backbones(tmp_path).get(name)
    assert all(part in str(raised.value) for part in [*named, str(tmp_path / name)])


def test_a_missing_judge_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneMissing, match=r"shapes\.train judge"):
        load_judge(tmp_path)
    monkeypatch.setattr(judge_backbone, "SHIPPED", tmp_path / "nowhere")
    with pytest.raises(BackboneMissing, match="nowhere"):
        Backbones(tmp_path).get("judge")


def test_backbones_are_loaded_once(tmp_path: Path) -> None:
    tiny_backbones.save_weights(tmp_path / "lpips_alex", tiny_backbones.alexnet_weights())
    backbones = Backbones(tmp_path)
    assert backbones.get("lpips_alex") is backbones.get("lpips_alex")


def test_published_files_are_found_in_the_folder_and_in_the_cache(tmp_path: Path, cache: Path) -> None:
    torch.save(tiny_backbones.alexnet_weights(seed=1), cache / ALEX)
    (tmp_path / "own/lpips_alex").mkdir(parents=True)
    torch.save(tiny_backbones.alexnet_weights(seed=2), tmp_path / "own/lpips_alex" / ALEX)
    for folder, seed in (("elsewhere", 1), ("own", 2)):
        network = cast(LpipsNet, Backbones(tmp_path / folder).get("lpips_alex"))
        wanted = tiny_backbones.alexnet_weights(seed)["features.10.weight"]
        assert torch.equal(network.state_dict()["features.10.weight"], wanted)


def _without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_without("features.3.bias"), "features.3.bias"),
        (lambda weights: weights | {"features.1.weight": torch.zeros(1)}, "features.1.weight"),
        (lambda weights: weights | {"features.0.bias": torch.zeros(65)}, "features.0.bias"),
    ],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], named: str, tmp_path: Path
) -> None:
    tiny_backbones.save_weights(tmp_path / "lpips_alex", change(tiny_backbones.alexnet_weights()))
    with pytest.raises(ModelError, match=f"1 tensors .* {named}"):
        Backbones(tmp_path).get("lpips_alex")


class _Code:
    """What a file of weights must not bring along."""


def test_files_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "lpips_alex"
    folder.mkdir()
    torch.save({"features.0.weight": _Code()}, folder / ALEX)
    with pytest.raises(ModelError, match="cannot be read"):
        Backbones(tmp_path).get("lpips_alex")
    (folder / ALEX).write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match="cannot be read"):
        Backbones(tmp_path).get("lpips_alex")
    (folder / "weights.safetensors").write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match=r"weights\.safetensors cannot be read"):
        Backbones(tmp_path).get("lpips_alex")


def _convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.tensordot(weight, windows, axes=((1, 2, 3), (0, 3, 4))) + bias[:, None, None]


def _pool(x: np.ndarray, side: int) -> np.ndarray:
    return sliding_window_view(x, (side, side), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))


def _readings(net: str, picture: np.ndarray, weights: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The activations that LPIPS compares, by the papers: AlexNet's five, VGG16's last of each group."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    x = ((2.0 * picture - 1.0).transpose(1, 2, 0) - shift).transpose(2, 0, 1) / scale[:, None, None]
    if net == "alex":
        plan = [(0, 4, 2, ""), (3, 1, 2, "pool"), (6, 1, 1, "pool"), (8, 1, 1, ""), (10, 1, 1, "")]
        read, side = {0, 3, 6, 8, 10}, 3
    else:
        groups = {5, 10, 17, 24}
        plan = [(i, 1, 1, "pool" if i in groups else "") for i in tiny_backbones.VGG16_INDICES]
        read, side = {2, 7, 14, 21, 28}, 2
    readings = []
    for index, stride, padding, before in plan:
        x = _pool(x, side) if before else x
        weight, bias = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
        x = np.maximum(_convolve(x, weight, bias, stride, padding), 0.0)
        readings += [x] if index in read else []
    return readings


def _by_hand(net: str, first: np.ndarray, second: np.ndarray, weights: dict[str, np.ndarray]) -> float:
    heads = torch.load(
        Path(torchmetrics_lpips.__file__).parent / f"lpips_models/{net}.pth", map_location="cpu", weights_only=True
    )
    total = 0.0
    layers = zip(_readings(net, first, weights), _readings(net, second, weights), strict=True)
    for number, (a, b) in enumerate(layers):
        a, b = (x / np.maximum(np.sqrt((x**2).sum(axis=0)), 1e-9) for x in (a, b))
        head = heads[f"lin{number}.model.1.weight"].double().numpy().reshape(-1, 1, 1)
        total += float((head * (a - b) ** 2).sum(axis=0).mean())
    return total


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_its_formula_and_that_of_torchmetrics(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tiny_backbones.alexnet_weights() if net == "alex" else tiny_backbones.vgg16_weights()
    tiny_backbones.save_weights(tmp_path / f"lpips_{net}", weights)
    backbones = Backbones(tmp_path)
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand((2, 2, 3, 35, 48), generator=generator)
    empty = torch.zeros(2, 1, 1, 1, 1)
    pair = Pair(Drawn(empty, first), Drawn(empty, second), [Prompt("", "")] * 2, backbones)
    scores = lpips.score(pair, f"lpips_{net}")

    arrays = {name: tensor.double().numpy() for name, tensor in weights.items()}
    wanted = [_by_hand(net, a.double().numpy(), b.double().numpy(), arrays) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(scores.numpy(), wanted, rtol=1e-4)

    network = cast(LpipsNet, backbones.get(f"lpips_{net}"))
    monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", lambda *_: network.features)
    theirs = torchmetrics_lpips._LPIPS(net=net)(first, second, normalize=True).flatten()
    torch.testing.assert_close(scores, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "smallest", "width"), [("lpips_alex", 31, 256), ("lpips_vgg", 16, 512)])
def test_the_smallest_pictures_that_lpips_reads(name: str, smallest: int, width: int, tmp_path: Path) -> None:
    weights = tiny_backbones.alexnet_weights() if name == "lpips_alex" else tiny_backbones.vgg16_weights()
    tiny_backbones.save_weights(tmp_path / name, weights)
    network = cast(LpipsNet, Backbones(tmp_path).get(name))
    assert network.smallest == smallest
    assert network.embed(torch.rand(1, 3, smallest, smallest + 20)).shape == (1, width)
    with pytest.raises(RuntimeError):
        network.features(torch.rand(1, 3, smallest - 1, 64))


def test_inception_has_the_published_size_and_names() -> None:
    network = InceptionNet()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    convolutions = [tensor.numel() for name, tensor in network.named_parameters() if name.endswith("conv.weight")]
    channels = sum(tensor.numel() for name, tensor in network.named_parameters() if name.endswith("bn.bias"))
    # Keras' InceptionV3 without its top has 21,802,784 parameters; 3 x 17,216 are batch normalization's (no scales)
    assert (len(convolutions), sum(convolutions), channels) == (94, 21_802_784 - 3 * 17_216, 17_216)
    assert {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6b.branch7x7_3.conv.weight": (192, 128, 7, 1),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.bn.weight": (192,),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
    }.items() <= shapes.items()


class _WrittenOut:
    """Inception-v3 of FID as one list of calls, on a state dict with torchvision's names."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def unit(self, x: Tensor, name: str, stride: int = 1, padding: int | tuple[int, int] = 0) -> Tensor:
        w = {key: self.weights[f"{name}.{key}"] for key in ("conv.weight", "bn.weight", "bn.bias")}
        mean, var = self.weights[f"{name}.bn.running_mean"], self.weights[f"{name}.bn.running_var"]
        y = functional.conv2d(x, w["conv.weight"], stride=stride, padding=padding)
        y = (y - mean.view(-1, 1, 1)) / torch.sqrt(var.view(-1, 1, 1) + 0.001)
        return (y * w["bn.weight"].view(-1, 1, 1) + w["bn.bias"].view(-1, 1, 1)).clamp(min=0.0)

    def mean_of_inside(self, x: Tensor) -> Tensor:
        inside = torch.ones_like(x[:1, :1])
        return functional.avg_pool2d(x, 3, 1, 1) / functional.avg_pool2d(inside, 3, 1, 1)

    def a(self, x: Tensor, n: str) -> Tensor:
        five = self.unit(self.unit(x, f"{n}.branch5x5_1"), f"{n}.branch5x5_2", padding=2)
        three = self.unit(self.unit(x, f"{n}.branch3x3dbl_1"), f"{n}.branch3x3dbl_2", padding=1)
        three = self.unit(three, f"{n}.branch3x3dbl_3", padding=1)
        pooled = self.unit(self.mean_of_inside(x), f"{n}.branch_pool")
        return torch.cat([self.unit(x, f"{n}.branch1x1"), five, three, pooled], 1)

    def b(self, x: Tensor, n: str) -> Tensor:
        three = self.unit(self.unit(x, f"{n}.branch3x3dbl_1"), f"{n}.branch3x3dbl_2", padding=1)
        three = self.unit(three, f"{n}.branch3x3dbl_3", stride=2)
        return torch.cat([self.unit(x, f"{n}.branch3x3", stride=2), three, functional.max_pool2d(x, 3, 2)], 1)

    def c(self, x: Tensor, n: str) -> Tensor:
        row, column = (0, 3), (3, 0)
        seven = self.unit(self.unit(x, f"{n}.branch7x7_1"), f"{n}.branch7x7_2", padding=row)
        seven = self.unit(seven, f"{n}.branch7x7_3", padding=column)
        double = self.unit(x, f"{n}.branch7x7dbl_1")
        for i, padding in enumerate((column, row, column, row), start=2):
            double = self.unit(double, f"{n}.branch7x7dbl_{i}", padding=padding)
        pooled = self.unit(self.mean_of_inside(x), f"{n}.branch_pool")
        return torch.cat([self.unit(x, f"{n}.branch1x1"), seven, double, pooled], 1)

    def d(self, x: Tensor, n: str) -> Tensor:
        three = self.unit(self.unit(x, f"{n}.branch3x3_1"), f"{n}.branch3x3_2", stride=2)
        seven = self.unit(self.unit(x, f"{n}.branch7x7x3_1"), f"{n}.branch7x7x3_2", padding=(0, 3))
        seven = self.unit(self.unit(seven, f"{n}.branch7x7x3_3", padding=(3, 0)), f"{n}.branch7x7x3_4", stride=2)
        return torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], 1)

    def e(self, x: Tensor, n: str, pooled: Tensor) -> Tensor:
        three = self.unit(x, f"{n}.branch3x3_1")
        double = self.unit(self.unit(x, f"{n}.branch3x3dbl_1"), f"{n}.branch3x3dbl_2", padding=1)
        parts = [
            self.unit(x, f"{n}.branch1x1"),
            self.unit(three, f"{n}.branch3x3_2a", padding=(0, 1)),
            self.unit(three, f"{n}.branch3x3_2b", padding=(1, 0)),
            self.unit(double, f"{n}.branch3x3dbl_3a", padding=(0, 1)),
            self.unit(double, f"{n}.branch3x3dbl_3b", padding=(1, 0)),
        ]
        return torch.cat([*parts, self.unit(pooled, f"{n}.branch_pool")], 1)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.unit(self.unit(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3")
        x = functional.max_pool2d(self.unit(x, "Conv2d_2b_3x3", padding=1), 3, 2)
        x = functional.max_pool2d(self.unit(self.unit(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        for n in ("5b", "5c", "5d"):
            x = self.a(x, f"Mixed_{n}")
        x = self.b(x, "Mixed_6a")
        for n in ("6b", "6c", "6d", "6e"):
            x = self.c(x, f"Mixed_{n}")
        x = self.d(x, "Mixed_7a")
        x = self.e(x, "Mixed_7b", self.mean_of_inside(x))
        x = self.e(x, "Mixed_7c", functional.max_pool2d(x, 3, 1, 1))
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


def test_inception_is_the_network_written_out(tmp_path: Path) -> None:
    weights = tiny_backbones.inception_weights()
    bare = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    tiny_backbones.save_weights(tmp_path / "inception", bare)
    backbone = cast(InceptionBackbone, Backbones(tmp_path).get("inception"))
    pictures = torch.rand((2, 3, 299, 299), generator=torch.Generator().manual_seed(2))
    features = backbone.embed(pictures)
    assert features.shape == (2, 2048) and features.dtype == torch.float32
    torch.testing.assert_close(features, _WrittenOut(weights)(2.0 * pictures - 1.0), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(features[0], features[1], rtol=1e-2)


class _Sees(InceptionNet):
    """Gives back what it is shown."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures


@pytest.mark.parametrize(("height", "width"), [(128, 128), (320, 500)])
def test_inception_sees_pictures_resized_between_pixel_centres(height: int, width: int) -> None:
    picture = torch.rand((3, height, width), generator=torch.Generator().manual_seed(3))
    seen = InceptionBackbone(_Sees()).embed(picture[None])[0]
    rows, columns = ((np.arange(299) + 0.5) * side / 299 - 0.5 for side in (height, width))
    grid = np.meshgrid(rows, columns, indexing="ij")
    wanted = [map_coordinates(channel.double().numpy(), grid, order=1, mode="nearest") for channel in picture]
    np.testing.assert_allclose(seen.numpy(), 2.0 * np.stack(wanted) - 1.0, atol=2e-4)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "clip"
    tiny_backbones.save_clip(folder)
    return folder


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96), (100, 37), (16, 20)])
def test_clip_sees_what_transformers_prepares(height: int, width: int, clip_folder: Path) -> None:
    # far enough from black and white that nothing overshoots: Pillow clamps after each of its two passes
    pixels = np.random.default_rng(4).integers(70, 186, (height, width, 3), dtype=np.uint8)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    wanted = processor(Image.fromarray(pixels), return_tensors="pt").pixel_values
    values = torch.tensor(pixels).permute(2, 0, 1)[None] / 255.0
    prepared = clip_backbone.load(clip_folder).prepare(values)
    assert prepared.shape == wanted.shape == (1, 3, 32, 32)
    torch.testing.assert_close(prepared, wanted, rtol=0.0, atol=1.5 / 255 / 0.26)  # Pillow rounds to 8 bits


def test_clip_normalizes_as_its_folder_says(tmp_path: Path) -> None:
    tiny_backbones.save_clip(tmp_path)
    own = {"image_mean": [0.5, 0.25, 0.0], "image_std": [0.5, 0.25, 2.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
    prepared = clip_backbone.load(tmp_path).prepare(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(prepared[0, :, 5, 5], torch.tensor([1.0, 3.0, 0.5]))


def test_clip_embeds_texts_to_its_length_and_in_any_company(clip_folder: Path) -> None:
    clip = cast(ClipBackbone, clip_backbone.load(clip_folder))
    alone = clip.embed_texts(["a red box"])
    assert alone.shape == (1, 24) and alone.dtype == torch.float32
    together = clip.embed_texts(["a red box", "ab" * 40, "ab" * 7 + "zz"])
    torch.testing.assert_close(alone[0], together[0], rtol=1e-4, atol=1e-5)
    begin, end, a, b = 52, 53, 0, 1  # 16 tokens: the mark, 14 letters, the mark
    tokens = torch.tensor([[begin, *[a, b] * 7, end]])
    with torch.no_grad():
        cut = clip.model.get_text_features(input_ids=tokens).pooler_output
    torch.testing.assert_close(together[1], cut[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[2], cut[0], rtol=1e-4, atol=1e-5)


def test_a_clip_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    tiny_backbones.save_clip(folder, weights=False)
    with pytest.raises(BackboneMissing, match=r"neither model\.safetensors in"):
        Backbones(tmp_path).get("clip")
    save_file({"logit_scale": torch.tensor(1.0)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks"):
        Backbones(tmp_path).get("clip")
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match="cannot be read"):
        Backbones(tmp_path).get("clip")
