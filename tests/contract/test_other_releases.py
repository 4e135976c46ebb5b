"""What another release wrote: unknown fields are ignored, another version is refused by name, others are read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest

from contract.announcements import Announcement, RollCall, announce
from contract.call import PREFIX
from contract.catalogue import Catalogue
from contract.errors import RecordUnreadable
from contract.job_store import JobStore
from contract.jobs import JobState
from contract.kinds import JobKind
from contract.transitions import Claimant, claim, find, list_jobs, submit, succeed
from tests.support.submissions import QUEUE, RESULT, submission
from tests.support.valkey import Valkey

NOTHING = Catalogue(models={}, methods={}, families=(), metrics=(), schedulers=(), presets={}, prompt_sets=())


def job(store: JobStore) -> str:
    return store.run(submit(submission(), open_jobs=99)).id


def change(valkey: Valkey, name: str, field: str, new: Callable[[str], str]) -> None:
    key = f"{PREFIX}job:{name}"
    valkey.client.hset(key, field, new(str(valkey.client.hget(key, field))))


def later_payload(text: str) -> str:
    return json.dumps({**json.loads(text), "strength": 0.5, "nested": {"later": 1}})


def test_fields_that_a_release_does_not_know_are_ignored(store: JobStore, valkey: Valkey) -> None:
    name = job(store)
    valkey.client.hset(f"{PREFIX}job:{name}", "trace", "00-ab")
    change(valkey, name, "payload", later_payload)
    record = store.run(claim([QUEUE], "w"))
    assert record is not None and record.payload == submission().payload
    store.run(succeed(Claimant(name, record.attempt), RESULT))
    change(valkey, name, "result", lambda text: json.dumps({**json.loads(text), "preview": None}))
    assert store.run(find(name)).result == RESULT


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("schema_version", lambda old: "2"),
        ("schema_version", lambda old: "later"),
        ("kind", lambda old: "video"),
        ("payload", lambda old: "{}"),
        ("payload", lambda old: "not json"),
        ("state", lambda old: "paused"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_by_name_and_its_neighbours_are_listed(
    store: JobStore, valkey: Valkey, field: str, new: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    first, strange, last = job(store), job(store), job(store)
    change(valkey, strange, field, new)
    with pytest.raises(RecordUnreadable, match=strange) as refused:
        store.run(find(strange))
    assert refused.value.code == "unknown-version"
    with caplog.at_level(logging.WARNING):
        page = store.run(list_jobs(JobKind.GENERATION, "", None, before=0, limit=10))
    assert [record.id for record in page.records] == [last, first]
    assert strange in caplog.text


def test_a_worker_that_takes_such_a_job_knows_which_one(store: JobStore, valkey: Valkey) -> None:
    strange, fine = job(store), job(store)
    change(valkey, strange, "schema_version", lambda old: "7")
    with pytest.raises(RecordUnreadable) as refused:
        store.run(claim([QUEUE], "w"))
    assert (refused.value.job, refused.value.attempt) == (strange, 1)
    record = store.run(claim([QUEUE], "w"))
    assert record is not None and (record.id, record.state) == (fine, JobState.RUNNING)


def said(store: JobStore, worker: str) -> Announcement:
    announcement = Announcement(worker=worker, queues=(QUEUE,), device="cpu", catalogue=NOTHING, loaded=())
    store.run(announce(announcement))
    return announcement


def rewrite(valkey: Valkey, said_by: str, **fields: object) -> None:
    text = str(valkey.client.hget(f"{PREFIX}workers", said_by))
    valkey.client.hset(f"{PREFIX}workers", said_by, json.dumps({**json.loads(text), **fields}))


@pytest.mark.parametrize(
    "fields", [{"later": 1}, {"loaded": [{"model": "m", "variant": "v", "digest": None, "resident_bytes": 1, "on": 2}]}]
)
def test_announcements_with_unknown_fields_count(store: JobStore, valkey: Valkey, fields: dict[str, object]) -> None:
    said(store, "later")
    rewrite(valkey, "later", **fields)
    assert [heard.announcement.worker for heard in store.run(RollCall().call()).heard] == ["later"]


@pytest.mark.parametrize("fields", [{"queues": None}, {"loaded": "none"}, {"worker": 5}, {"device": {}}])
def test_an_announcement_that_cannot_be_read_is_left_out_and_logged(
    store: JobStore, valkey: Valkey, fields: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    said(store, "fine")
    said(store, "strange")
    rewrite(valkey, "strange", **fields, note="once")
    roll = RollCall()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [heard.announcement.worker for heard in store.run(roll.call()).heard] == ["fine"]
    assert caplog.text.count("another release") == 1


def test_the_first_release_wrote_its_catalogue_into_the_announcement(store: JobStore, valkey: Valkey) -> None:
    old = {"worker": "old", "queues": [QUEUE], "device": "cpu", "loaded": []}
    text = json.dumps({**old, "catalogue": json.loads(NOTHING.model_dump_json())})
    valkey.client.hset(f"{PREFIX}workers", "old", text)
    valkey.client.zadd(f"{PREFIX}beats", {"old": float(valkey.client.time()[0])})
    roll = store.run(RollCall().call())
    assert roll.catalogue == NOTHING
    assert roll.heard[0].announcement.release == "0.1.0"


def test_a_card_of_a_later_release_is_read(tmp_path: object) -> None:
    from pathlib import Path

    from contract.registry import Registry
    from tests.support.cards import stage

    folder = Path(str(tmp_path))
    card = stage(folder / "shipped" / "tiny" / "v", variant="v") / "card.json"
    later = json.loads(card.read_text())
    later["signature"]["scheduler_config"] = {"a": 1}
    later["slo"] = 3
    card.write_text(json.dumps(later))
    assert [found.card.variant for found in Registry(folder / "shipped", folder).variants("tiny")] == ["v"]
