"""Where the files are that come with the code, and where results go. A checkout has both beside the packages. An
installed wheel carries recipes and prompts inside it, and what it writes goes to the user's own folders."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
"""The folder that holds the packages: a checkout, an image's folder, or site-packages."""

PACKED = ROOT / "facsimile" / "shipped"
"""Where the wheel has its recipes and prompts; a checkout has no such folder."""

_NAME = "facsimile"


def installed() -> bool:
    """Whether this code was installed from a wheel, so that nothing may be written beside it."""
    return PACKED.is_dir()


def shipped(name: str) -> Path:
    """The folder `recipes` or `prompts` that came with the code."""
    return (PACKED if installed() else ROOT) / name


def models_folder() -> Path:
    """The folder of the models file and of the metrics' backbones: the checkout's, or `models` in the data folder."""
    return data_folder() / "models" if installed() else ROOT / "models"


def data_folder() -> Path:
    """The folder that results go to: `data` of the checkout, or the user's data folder. It need not be there."""
    if not installed():
        return ROOT / "data"
    import platformdirs

    return Path(platformdirs.user_data_path(_NAME, appauthor=False))


def cache_folder() -> Path:
    """The folder for what can be made again: `data` of the checkout, or the user's cache folder."""
    return user_cache() if installed() else ROOT / "data"


def user_cache() -> Path:
    """The user's cache folder, wherever the code is."""
    import platformdirs

    return Path(platformdirs.user_cache_path(_NAME, appauthor=False))
