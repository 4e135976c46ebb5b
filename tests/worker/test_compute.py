"""One thread of a worker does all of torch's work, and in the background it and its threads yield to others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import worker.execution
from contract.places import ROOT
from contract.transitions import find, submit
from tests.support.submissions import RESULT, submission
from worker.claims import ClaimLoop
from worker.compute import LOWEST, ComputeThread
from worker.execution import execute
from worker.runtime import Runtime


def test_tokens_from_any_thread_and_polls_run_jobs_in_the_compute_thread(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, seen = ComputeThread(), []

    def work(*_: Any) -> Any:
        seen.append(threading.get_ident())
        return RESULT

    monkeypatch.setattr(worker.execution, "job_of", lambda kind: work)
    claims = ClaimLoop(runtime, execute, compute)
    for _ in range(3):  # as tokens do, each from a thread of its own
        runtime.store.run(submit(submission(), open_jobs=9))
        token = threading.Thread(target=claims.drain)
        token.start()
        token.join()
    claims.start()  # as polls do
    last = runtime.store.run(submit(submission(), open_jobs=9)).id
    until = time.monotonic() + 20
    while not runtime.store.run(find(last)).state.terminal and time.monotonic() < until:
        time.sleep(0.02)
    claims.stop()
    assert seen == [compute.run(threading.get_ident)] * 4


def test_what_a_call_raises_reaches_the_caller_and_the_thread_goes_on() -> None:
    compute = ComputeThread()
    with pytest.raises(SystemExit) as ended:
        compute.run(lambda: exit_with(2))
    assert ended.value.code == 2
    assert compute.run(lambda: 7) == 7


def exit_with(status: int) -> None:
    raise SystemExit(status)


def test_in_the_background_the_thread_and_its_children_yield_and_others_do_not() -> None:
    def niceness() -> list[int]:
        child: list[int] = []
        thread = threading.Thread(
            target=lambda: child.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        )
        thread.start()
        thread.join()
        return [os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), *child]

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert ComputeThread(background=True).run(niceness) == [LOWEST, LOWEST]
    assert ComputeThread().run(niceness) == [own, own]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own < LOWEST


SESSION = Path("/proc/self/autogroup")
BACKGROUND = """
import sys
from pathlib import Path

from worker.compute import yield_session

if sys.argv[1] == "background":
    yield_session()
print(Path("/proc/self/autogroup").read_text(), end="")
"""


@pytest.mark.skipif(not SESSION.exists(), reason="this kernel does not group processes by session")
def test_a_session_of_its_own_yields_as_a_whole_and_a_shells_does_not() -> None:
    before = SESSION.read_text("ascii")  # empty in the kernel's first group, as in some containers

    def group(where: str, *, leads: bool) -> str:
        command = [sys.executable, "-c", BACKGROUND, where]
        done = subprocess.run(command, cwd=ROOT, start_new_session=leads, capture_output=True, text=True, check=True)
        return done.stdout

    assert group("background", leads=True).endswith(f"nice {LOWEST}\n")
    assert group("foreground", leads=True).endswith("nice 0\n")
    assert group("background", leads=False) == before
    assert SESSION.read_text("ascii") == before
