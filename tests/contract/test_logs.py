"""Logs are JSON lines and hold no prompt, whatever a library logs, warns of, raises or prints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SETUP = """
import logging, os, subprocess, sys, threading, time, warnings
import structlog
from contract.logs import adopt_loggers, configure_logs
from contract.output import CapturedOutput
output = CapturedOutput(stdout=True)
configure_logs("test", output.stream)
SECRET = "a zebra that juggles"
def at_hand(**what): return structlog.contextvars.bound_contextvars(**what)
"""
END = "\nsys.stderr.flush(); sys.stdout.flush(); time.sleep(0.2); output.close()\n"

THIRD_PARTIES = {
    "logger": "logging.getLogger('diffusers.pipelines').warning('truncated: %s', SECRET)",
    "formatted": "logging.getLogger('transformers').error(f'truncated: {SECRET}')",
    "own handler": (
        "own = logging.getLogger('noisy'); own.propagate = False; own.addHandler(logging.StreamHandler(sys.stderr)); "
        "adopt_loggers('noisy'); own.warning(SECRET)"
    ),
    "handler kept": (
        "own = logging.getLogger('kept'); own.propagate = False; own.addHandler(logging.StreamHandler(sys.stderr)); "
        "output.withhold(); own.warning(SECRET)"
    ),
    "warning": "warnings.warn(f'cut: {SECRET}', FutureWarning)",
    "print": "output.withhold(); print(SECRET)",
    "native": "output.withhold(); os.write(2, SECRET.encode() + b'\\n'); os.write(1, SECRET.encode() + b'\\n')",
    "bar": "output.withhold(); sys.stderr.write(f'{SECRET}  50%\\r{SECRET} 100%\\n')",
    "child": "output.withhold(); subprocess.run(['echo', SECRET])",
    "exception": (
        "try:\n    raise KeyError(SECRET)\nexcept KeyError: structlog.get_logger('worker.jobs').exception('job failed')"
    ),
    "chain": (
        "try:\n    try:\n        raise RuntimeError(SECRET)\n    except RuntimeError as error:\n"
        "        raise ValueError(SECRET) from error\n"
        "except ValueError: logging.getLogger('uvicorn.error').exception('in application')"
    ),
}


def lines(script: str) -> list[dict[str, object]]:
    ended = subprocess.run([sys.executable, "-c", SETUP + script + END], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    return [dict(json.loads(line)) for line in ended.stderr.splitlines()]


@pytest.mark.parametrize("context", ["job", "request"])
@pytest.mark.parametrize("name", THIRD_PARTIES)
def test_what_a_third_party_says_of_a_prompt_is_told_of_and_left_out(name: str, context: str) -> None:
    said = THIRD_PARTIES[name].replace("\n", "\n    ")
    found = lines(f"with at_hand({context}='1'):\n    {said}\n")
    assert len(found) == 1
    assert not any(word in json.dumps(found) for word in ("zebra", "juggles"))
    if name in ("logger", "formatted", "own handler", "warning"):
        assert "<string>" in str(found[0]["message"])  # where it came from
    if name == "chain":
        assert [part in str(found[0]["exception"]) for part in ("RuntimeError", "ValueError")] == [True, True]


def test_our_own_messages_and_reasons_stay_whole() -> None:
    found = lines(
        "from contract.errors import RegistryError\n"
        "with at_hand(job='7'):\n"
        "    structlog.get_logger('worker').info('job started', kind='generation')\n"
        "    try:\n        raise RegistryError('the card of a/b cannot be read')\n"
        "    except RegistryError: structlog.get_logger('worker').exception('job failed')\n"
        "    try:\n        open('/nowhere/at/all')\n"
        "    except OSError: structlog.get_logger('worker').exception('job failed')\n"
    )
    assert [line["message"] for line in found] == ["job started", "job failed", "job failed"]
    assert all(line["job"] == "7" for line in found)
    assert "the card of a/b cannot be read" in str(found[1]["exception"])
    assert "No such file" in str(found[2]["exception"])


def test_without_anybody_at_hand_all_is_said() -> None:
    found = lines(
        "logging.getLogger('celery').warning('connected to %s', 'x')\nwarnings.warn('old option')\nprint('loading')\n"
        "try:\n    raise KeyError('model')\nexcept KeyError: logging.getLogger('celery').exception('start')\n"
    )
    assert [str(line["message"]) for line in found[:1]] == ["connected to x"]
    assert "old option" in json.dumps(found)
    assert "loading" in json.dumps(found)
    assert "KeyError: 'model'" in json.dumps(found)


def test_a_place_that_repeats_itself_is_told_of_once() -> None:
    found = lines("with at_hand(job='1'):\n    for _ in range(50): logging.getLogger('diffusers').warning(SECRET)\n")
    assert len(found) == 1


def test_json_of_children_passes_as_it_is() -> None:
    found = lines('subprocess.run([\'echo\', \'{"message": "from a child", "level": "info"}\'])\n')
    assert found == [{"message": "from a child", "level": "info"}]
