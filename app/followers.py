"""How many clients may hang on at once, following events or waiting for a job: so many for each key, so many in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

OF_ONE_KEY = 100
IN_ALL = 400
"""Less than the requests that are served at once: whoever only asks is answered beside them."""


class Followers:
    """Counts those that hang on in one gateway."""

    def __init__(self) -> None:
        self._of_key: Counter[str] = Counter()

    def full(self, owner: str) -> bool:
        """Whether one more of this owner's would be too many."""
        return self._of_key[owner] >= OF_ONE_KEY or self._of_key.total() >= IN_ALL

    @contextmanager
    def one_more(self, owner: str) -> Iterator[None]:
        """Counts one while the block runs."""
        self._of_key[owner] += 1
        try:
            yield
        finally:
            self._of_key[owner] -= 1
            if not self._of_key[owner]:
                del self._of_key[owner]
