"""Events as CloudEvents: what each is called, what stands in it, and that it is a lawful one."""

import re
from datetime import datetime
from typing import Any

import msgspec
import pytest

from esexec import cloudevents
from esexec.cloudevents import ExecutionEventType
from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.errors import ValidationError
from esexec.log import codec
from projections.feed import Words
from tests.given import T0
from tests.histories.kinds import KINDS
from tests.projecting import golden
from tests.unit.test_commits import EVENTS

ROOM = 1024 * 1024
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def told(commit: Commit, index: int = 0, *, words: str = "words", position: int = 7, room: int = ROOM) -> dict[str, Any]:
    data = cloudevents.encode("esexec/default", commit.execution_id, position, commit, index, words, room)
    document: dict[str, Any] = msgspec.json.decode(data)
    return document


def one(event: e.Event, **fields: Any) -> Commit:
    return Commit(v=1, execution_id="e1", n=3, version=5, time=T0, events=(event,), **fields)


def is_lawful(document: dict[str, Any]) -> bool:
    """The rules of CloudEvents 1.0 for its JSON format, as far as they concern us."""
    required = all(isinstance(document[name], str) and document[name] for name in ("id", "source", "type"))
    names = all(re.fullmatch("[a-z0-9]{1,20}", name) for name in document)
    values = [value for name, value in document.items() if name != "data"]
    typed = all(isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 2**31) for value in values)
    return (
        required and names and typed and document["specversion"] == "1.0" and bool(_TIME.fullmatch(document["time"]))
        and document["datacontenttype"] == "application/json"
    )  # fmt: skip


def test_every_type_has_its_name() -> None:
    """The closed list of events and the enumeration are the same, but for what is not told."""
    assert {one.name.lower() for one in ExecutionEventType} == set(e.TYPES) - cloudevents.UNTOLD
    assert len(set(ExecutionEventType)) == len(ExecutionEventType)
    assert all("." in one.value for one in ExecutionEventType)


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ("execution_started", "execution.started"),
        ("execution_completed", "execution.completed"),
        ("execution_failed", "execution.failed"),
        ("execution_paused", "execution.paused"),
        ("execution_resumed", "execution.resumed"),
        ("execution_cancelled", "execution.cancelled"),
        ("task_started", "task.started"),
        ("task_completed", "task.completed"),
        ("task_failed", "task.failed"),
        ("resource_allocated", "resource.allocated"),
        ("resource_released", "resource.released"),
        ("checkpoint_created", "checkpoint.created"),
        ("recovery_initiated", "recovery.initiated"),
        ("task_retry_scheduled", "task.retry_scheduled"),
        ("execution_rolled_back", "execution.rolled_back"),
        ("before_image_recorded", "before_image.recorded"),
        ("something_of_later", "something.of_later"),
    ],
)
def test_the_names_of_the_documents(event: str, name: str) -> None:
    """They are those that were agreed upon; one that this version does not know follows the rule."""
    assert cloudevents.type_of(event) == name


@pytest.mark.parametrize("kind", sorted(set(e.TYPES) - cloudevents.UNTOLD))
def test_every_event_is_a_lawful_cloud_event(kind: str) -> None:
    """Of every type: it is read back as it was, with all the fields of the event."""
    commit = one(EVENTS[kind], actor="ada")
    document = told(commit)
    assert is_lawful(document)
    assert document["type"] == ExecutionEventType[kind.upper()]
    read = cloudevents.decode(msgspec.json.encode(document))
    assert (read.id, read.subject, read.execution_id, read.n, read.version) == ("e1/5", "e1", "e1", 3, 5)
    assert (read.position, read.actor, read.time) == (7, "ada", T0)
    assert {"type": kind} | read.data.data == msgspec.json.decode(msgspec.json.encode(EVENTS[kind]))
    assert cloudevents.document(read) == document


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_golden_histories_are_told(kind: str) -> None:
    """Every event of every golden history has words, and is lawful; ids are unique."""
    words, ids = Words(), []
    for data in golden(kind):
        commit = codec.decode(data)
        for index, event in enumerate(commit.events):
            document = told(commit, index, words=words.of(commit.execution_id, event))
            assert is_lawful(document)
            assert document["data"]["description"].strip()
            ids.append(document["id"])
    assert ids == [f"{codec.decode(golden(kind)[0]).execution_id}/{version}" for version in range(1, len(ids) + 1)]


def test_a_position_may_be_large() -> None:
    """Larger than a number of CloudEvents may be."""
    document = told(one(e.ExecutionStarted()), position=2**40)
    assert is_lawful(document)
    assert cloudevents.decode(msgspec.json.encode(document)).position == 2**40


def test_a_task_is_named() -> None:
    """What concerns a step says which, and which attempt and run of it; what does not, says none of it."""
    assert told(one(e.TaskScheduled(step="a", attempt=2)))["data"] == {
        "description": "words",
        "task_id": "a",
        "attempt": 2,
        "run": 1,
        "data": {"step": "a", "attempt": 2},
    }
    assert told(one(e.ExecutionStarted()))["data"] == {"description": "words", "data": {}}


def test_what_is_too_large_is_left_out() -> None:
    """Then all else is told."""
    commit = one(e.TaskCompleted(step="a", ended_at=T0, output="x" * 5_000))
    assert "left_out" not in told(commit, room=6_000)["data"]
    document = told(commit, room=5_000)
    assert is_lawful(document)
    assert document["data"] == {"description": "words", "task_id": "a", "attempt": 1, "run": 1, "data": {}, "left_out": True}


def test_a_newer_esexec_may_say_more() -> None:
    """Types and attributes that are not known here do no harm."""
    document = told(one(e.ExecutionStarted())) | {"type": "moon.rose", "phase": "full"}
    assert cloudevents.decode(msgspec.json.encode(document)).type == "moon.rose"


@pytest.mark.parametrize("data", [b"", b"nonsense", b"{}", b'{"id":1}', b"\xff", b"[" * 5_000])
def test_what_is_no_event(data: bytes) -> None:
    """It is said so, whatever it is."""
    with pytest.raises(ValidationError) as no:
        cloudevents.decode(data)
    assert no.value.code == "undecodable"


def test_words_know_how_long_it_took() -> None:
    """As long as it is remembered when the attempt began; executions do not mix."""
    words = Words()
    began = e.TaskStarted(step="a", started_at=datetime.fromisoformat("2026-01-01T00:00:00Z"))
    ended = e.TaskCompleted(step="a", ended_at=datetime.fromisoformat("2026-01-01T00:00:02Z"))
    words.of("e1", began)
    assert words.of("e2", ended) == "a completed"
    assert words.of("e1", ended) == "a completed in 2.0 s"
    words.of("e1", began)
    words.of("e1", e.ExecutionCompleted())
    assert words.of("e1", ended) == "a completed"


def test_words_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many executions at once those that were silent for longest."""
    monkeypatch.setattr("projections.feed._TELLERS", 2)
    words = Words()
    for entity in ("e1", "e2", "e1", "e3"):
        words.of(entity, e.TaskStarted(step=entity, started_at=T0))
    ended = [words.of(entity, e.TaskCompleted(step=entity, ended_at=T0)) for entity in ("e2", "e3")]
    assert ended == ["e2 completed", "e3 completed in 0 ms"]
