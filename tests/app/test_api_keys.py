"""Keys: one format of the file, roles, expiry, and changes without a restart."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.api_keys import ApiKeysError, read_keys
from app.application import create_app
from app.settings import GatewaySettings
from contract.job_store import JobStore
from tests.support.gateway import CALIBRATION, EVALUATION, GENERATION
from tests.support.valkey import Valkey

PLAIN = "0123456789abcdef"


def line(name: str, role: str, key: str, **more: str) -> str:
    tail = "".join(f" {word}={value}" for word, value in more.items())
    return f"{name}\t{role}  {hashlib.sha256(key.encode()).hexdigest()}{tail}"


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    day = datetime.now(UTC).date()
    path = tmp_path / "keys"
    lines = [
        "# team A",
        "",
        PLAIN + "   # of 0.1.0",
        line("phone", "user", "phones-own-key"),
        line("ci", "calibrator", "the-key-of-ci", expires=str(day)),
        line("old", "admin", "the-old-key", expires=str(day - timedelta(days=1))),
    ]
    path.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    return path


@pytest.fixture
def client(settings: GatewaySettings, valkey: Valkey, store: JobStore, keys: Path) -> Iterator[TestClient]:
    with TestClient(create_app(settings.model_copy(update={"api_keys_file": keys}), valkey.url)) as client:
        yield client


@pytest.mark.parametrize(
    ("key", "statuses"),
    [
        (PLAIN, (202, 202, 202)),
        ("phones-own-key", (202, 403, 403)),
        ("the-key-of-ci", (202, 202, 202)),
        ("the-old-key", (401, 401, 401)),
        ("# team A", (401, 401, 401)),
        ("phone", (401, 401, 401)),
    ],
)
def test_a_role_says_what_a_key_may_do(client: TestClient, key: str, statuses: tuple[int, ...]) -> None:
    asked = (("generations", GENERATION), ("calibrations", CALIBRATION), ("evaluations", EVALUATION))
    answers = [client.post(f"/v1/{kind}", json=body, headers=headers(key)) for kind, body in asked]
    assert tuple(answer.status_code for answer in answers) == statuses
    for answer in answers:
        assert answer.json().get("code") == {202: None, 401: "unauthorized", 403: "forbidden"}[answer.status_code]


def test_a_changed_file_counts_at_once_and_a_broken_one_does_not(client: TestClient, keys: Path) -> None:
    def status(key: str) -> int:
        return client.get("/v1/generations", headers=headers(key)).status_code

    def write(text: str, later: int) -> None:
        keys.write_text(text)
        os.utime(keys, ns=(0, later))  # two writes within one tick of the clock are two writes

    assert status("another-key-of-theirs") == 401
    write(line("new", "user", "another-key-of-theirs"), 1)
    assert (status("another-key-of-theirs"), status(PLAIN)) == (200, 401)
    write("broken line of four words", 2)
    assert status("another-key-of-theirs") == 200
    keys.unlink()
    assert status("another-key-of-theirs") == 200
    write(PLAIN, 3)
    assert (status("another-key-of-theirs"), status(PLAIN)) == (401, 200)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("short", "line 1: a key has at least 16"),
        (f"{PLAIN}\n{PLAIN}", "line 2: .*there already"),
        (f"{line('a', 'user', 'x')}\n{line('a', 'user', 'y')}", "line 2: .*there already"),
        (line("Phone", "user", "x"), "line 1: .*lower-case"),
        (line("phone", "root", "x"), "a role of user, calibrator, admin"),
        ("phone user deadbeef", "sha256"),
        (line("phone", "user", "x", expires="tomorrow"), "YYYY-MM-DD"),
        (line("phone", "user", "x", until="2027-01-01"), "expires="),
        ("# nothing\n\n", "holds no key"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ApiKeysError, match=reason):
        read_keys(path)


def test_jobs_of_a_plain_key_stay_its_own_across_releases(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(PLAIN)
    assert read_keys(path)[0].owner == hashlib.sha256(PLAIN.encode()).hexdigest()[:16]  # as 0.1.0 wrote it


def test_the_command_makes_a_line_that_lets_its_key_in(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "app", "key", "phone", "--role", "calibrator", "--days", "3"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    secret, written = (each.partition(":")[2].strip() for each in made.stdout.splitlines())
    path = tmp_path / "keys"
    path.write_text(written)
    (key,) = read_keys(path)
    assert (key.owner, key.role.name, key.digest) == (
        "key:phone", "CALIBRATOR", hashlib.sha256(secret.encode()).hexdigest(),
    )  # fmt: skip
    assert key.last_day == datetime.now(UTC).date() + timedelta(days=3)
