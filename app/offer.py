"""What workers offer, as one request sees it."""

from __future__ import annotations

from dataclasses import dataclass

from app.errors import NoWorker
from contract.announcements import Roll
from contract.catalogue import Catalogue


@dataclass(frozen=True)
class Offer:
    """The catalogue of the workers that were heard of, and which queues they serve."""

    catalogue: Catalogue
    roll: Roll

    def require(self, queue: str) -> None:
        """Raises NoWorker unless a worker for this queue is running, or was a moment ago."""
        if not self.roll.serves(queue):
            raise NoWorker(f"no worker that serves the queue {queue} is running; try again in a moment")
