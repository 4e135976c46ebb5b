"""Published variants: folders `<root>/<model>/<variant>/` with a card.json and a checkpoint. A variant is complete and
never changes, or it is not there: it is built in a staging folder and published by one rename."""

from __future__ import annotations

import errno
import logging
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from contract.card import Card
from contract.errors import RegistryError, VariantExists
from contract.folders import seconds_since_write, sync_folder, sync_tree

CARD = "card.json"
MAX_CARD_BYTES = 4 * 2**20
"""Some hundred times the largest card; more would stop the gateway while it is read."""

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedVariant:
    """A variant that can be served: its folder and its card."""

    folder: Path
    card: Card


class Registry:
    """The variants shipped with the code (read only) and those made here, under `data`. Shipped names are taken."""

    def __init__(self, shipped: Path, data: Path) -> None:
        self._own = data / "variants"
        self._roots = (shipped, self._own)
        self._staging = data / "staging"

    def variants(self, model: str | None = None) -> list[PublishedVariant]:
        """All variants, or those of one model, by name. One whose card cannot be read is left out, and logged."""
        folders = sorted(
            path.parent.relative_to(root) for root in self._roots for path in root.glob(f"{model or '*'}/*/{CARD}")
        )
        found: list[PublishedVariant] = []
        for folder in dict.fromkeys(folders):
            try:
                variant = self.get(*folder.parts)
            except RegistryError as error:
                _log.warning("variant left out: %s", error)
                continue
            if variant:
                found.append(variant)
        return found

    def get(self, model: str, variant: str) -> PublishedVariant | None:
        """One variant, None when there is none of that name. Raises RegistryError when its card cannot be read."""
        if not (_IDENTIFIER.fullmatch(model) and _IDENTIFIER.fullmatch(variant)):
            return None
        for root in self._roots:
            folder = root / model / variant
            if (folder / CARD).is_file():
                return PublishedVariant(folder, _read_card(folder, model, variant))
        return None

    def folder(self, model: str, variant: str) -> Path:
        """Where a variant is, or, when there is none of that name, where it would be published."""
        folders = [root / model / variant for root in self._roots]
        return next((folder for folder in folders if (folder / CARD).is_file()), folders[-1])

    def stage(self, name: str) -> Path:
        """A new empty folder to build a variant in, on the same file system as the published ones."""
        folder = self._staging / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def publish(self, staged: Path) -> PublishedVariant:
        """Make a complete staged variant visible under its card's name. Raises VariantExists, and RegistryError when
        the staged folder holds no card."""
        card = _read_card(staged)
        target = self._own / card.model / card.variant
        if self.get(card.model, card.variant) or target.exists():
            raise VariantExists(f"{card.model} already has a variant {card.variant}, and a published one never changes")
        target.parent.mkdir(parents=True, exist_ok=True)
        sync_tree(staged)
        try:
            staged.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise VariantExists(f"{card.model} got a variant {card.variant} meanwhile") from error
            raise RegistryError(f"variant {card.variant} could not be published: {error.strerror}") from error
        sync_folder(target.parent)
        return PublishedVariant(target, card)

    def sweep(self, older_than: float) -> int:
        """Remove staging folders last written to `older_than` seconds ago or earlier; answers how many."""
        if not self._staging.is_dir():
            return 0
        stale = [folder for folder in self._staging.iterdir() if seconds_since_write(folder) >= older_than]
        for folder in stale:
            shutil.rmtree(folder, ignore_errors=True)
        return len(stale)


@lru_cache(maxsize=1024)
def _parsed(path: Path, state: tuple[int, int, int]) -> Card:
    """The card in a file, read again when the file's state is another one: every request looks at all cards."""
    return Card.model_validate_json(path.read_bytes())


def _read_card(folder: Path, model: str | None = None, variant: str | None = None) -> Card:
    path = folder / CARD
    try:
        state = path.stat()
        if state.st_size > MAX_CARD_BYTES:
            raise RegistryError(f"the card of {folder.parent.name}/{folder.name} is larger than any card can be")
        card = _parsed(path, (state.st_mtime_ns, state.st_ino, state.st_size))
    except (OSError, ValidationError) as error:
        raise RegistryError(f"the card of {folder.parent.name}/{folder.name} cannot be read") from error
    if (model, variant) not in ((None, None), (card.model, card.variant)):
        raise RegistryError(f"the card in {model}/{variant} is that of {card.model}/{card.variant}")
    return card
