"""`import facsimile`: light, and the format is registered afterwards, whatever was imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

import facsimile
from contract.places import ROOT
from contract.release import RELEASE

REGISTERED = "from diffusers.quantizers.auto import AUTO_QUANTIZER_MAPPING as m; assert 'facsimile' in m"
UNREGISTERED = REGISTERED.replace("in m", "not in m")


def _run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["facsimile", "quant"])
def test_importing_it_imports_nothing_heavy(package: str) -> None:
    _run(f"import sys, {package}; assert not {{'torch', 'diffusers', 'transformers', 'numpy'}} & sys.modules.keys()")


@pytest.mark.parametrize(
    "code",
    [
        UNREGISTERED,
        f"import quant; {REGISTERED}",
        f"import facsimile; {REGISTERED}",
        f"from diffusers import DiffusionPipeline; import facsimile; {REGISTERED}",
        f"import facsimile, importlib.util as u; u.find_spec('diffusers.quantizers.auto'); {REGISTERED}",
    ],
)
def test_the_format_is_registered_whichever_comes_first(code: str) -> None:
    _run(code)


def test_a_shipped_variant_loads_with_plain_diffusers() -> None:
    folder = ROOT / "models/variants/shapes-sd/w8a8-minmax"
    _run(
        "import facsimile; from diffusers import DiffusionPipeline;"
        f"unet = DiffusionPipeline.from_pretrained({str(folder)!r}).unet;"
        "from quant.layers.layer import QuantizedLayer;"
        "assert any(isinstance(module, QuantizedLayer) for module in unet.modules())"
    )


def test_a_verb_is_a_function_however_it_is_reached() -> None:
    _run(
        "from facsimile import quantize; import facsimile; assert facsimile.quantize is quantize and callable(quantize)"
    )
    _run("import facsimile.verbs.load; import facsimile; assert callable(facsimile.load)")


def test_it_says_what_it_offers() -> None:
    assert set(facsimile.__all__) == {"__version__", "bench", "compare", "load", "quantize", "save"}
    assert set(facsimile.__all__) <= set(dir(facsimile))
    assert facsimile.__version__ == RELEASE
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        facsimile.nothing  # noqa: B018


def test_every_verb_says_what_it_takes_gives_and_refuses() -> None:
    for verb in sorted(set(facsimile.__all__) - {"__version__"}):
        text = getattr(facsimile, verb).__doc__
        assert "Args:" in text and "Raises:" in text and ("Returns:" in text or verb == "save"), verb
