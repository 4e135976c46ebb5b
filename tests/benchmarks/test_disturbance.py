"""Processor time that others take is seen; a process' own is not counted."""

from __future__ import annotations

from benchmarks.disturbance import Instant, disturbance


def test_own_time_is_no_disturbance() -> None:
    assert disturbance(Instant(0.0, 10.0, 5.0), Instant(1.0, 12.0, 7.0), cores=2) == 0.0


def test_time_of_others_is_a_share_of_the_machine() -> None:
    found = disturbance(Instant(0.0, 10.0, 5.0), Instant(10.0, 30.0, 15.0), cores=2)
    assert 0.49 < found <= 0.5
