"""The timeline: commits in, entries out."""

from datetime import timedelta

import pytest

from esexec.domain import events as e
from esexec.domain.errors import ErrorInfo
from projections.timeline import Teller, duration, timeline
from tests.given import T0, at, completed, due, failed, given, start, step

RETRIED = given(start(step("a"), step("b", "a")), failed("a"), due("a"), completed("a", 7, 2), completed("b"))


def test_every_event_has_its_entry() -> None:
    """A timeline has one entry per event, in the order of versions, with the commit's number and time."""
    entries = timeline(RETRIED.commits)
    assert [entry.event for entry in entries] == RETRIED.events
    assert [entry.version for entry in entries] == list(range(1, len(RETRIED.events) + 1))
    times = {commit.n: commit.time for commit in RETRIED.commits}
    assert all(entry.time == times[entry.n] for entry in entries)
    assert all(entry.type == e.type_of(entry.event) for entry in entries)


def test_offsets_count_from_the_beginning() -> None:
    """`offset_ms` counts from the first commit and never runs backwards."""
    entries = timeline(RETRIED.commits)
    first = RETRIED.commits[0].time
    assert entries[0].offset_ms == 0
    assert [entry.offset_ms for entry in entries] == sorted(entry.offset_ms for entry in entries)
    assert all(first + timedelta(milliseconds=entry.offset_ms) == entry.time for entry in entries)


def test_steps_and_attempts_are_named() -> None:
    """What concerns a step names it and its attempt; what concerns the execution names neither."""
    entries = timeline(RETRIED.commits)
    assert {(entry.step, entry.attempt) for entry in entries} == {(None, None), ("a", 1), ("a", 2), ("b", 1)}


def test_a_history_without_commits_has_no_entries() -> None:
    """Nothing happened: nothing is told."""
    assert timeline([]) == []


ERROR = ErrorInfo(type="execution_error", code="HTTP_503", message="busy\nand more")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (e.ExecutionStarted(), "execution started"),
        (e.ExecutionCompleted(), "execution completed"),
        (e.ExecutionFailed(error=ERROR), "execution failed: [HTTP_503] busy…"),
        (e.ExecutionCancelRequested(grace_ms=1, reason="enough"), "cancel requested: enough"),
        (e.ExecutionCancelRequested(grace_ms=1), "cancel requested"),
        (e.ExecutionCancelled(abandoned=("a", "b")), "execution cancelled; did not stop in time: a, b"),
        (e.TaskScheduled(step="a"), "a scheduled"),
        (e.TaskScheduled(step="a", attempt=2), "a (attempt 2) scheduled"),
        (e.TaskStarted(step="a", started_at=T0, worker="w1"), "a started on w1"),
        (e.TaskCompleted(step="a", ended_at=T0), "a completed"),
        (e.TaskFailed(step="a", error=ERROR, will_retry=True), "a failed: [HTTP_503] busy…"),
        (
            e.TaskFailed(step="a", attempt=4, error=ERROR, retries_exhausted=True),
            "a (attempt 4) failed: [HTTP_503] busy…; no retries left",
        ),
        (
            e.TaskTimedOut(step="a", timeout_ms=30_000, error=ERROR, ended="cancelled"),
            "a ran past its timeout of 30.0 s (cancelled)",
        ),
        (e.TaskRetryScheduled(step="a", attempt=2, delay_ms=1_000, due=T0), "a is tried again in 1.0 s (attempt 2)"),
        (e.TaskSkipped(step="b", reason="dependency_failed", because="a"), "b skipped: a failed"),
        (e.TaskSkipped(step="b", reason="condition"), "b skipped: condition"),
        (e.TaskCancelled(step="a", ended="abandoned"), "a cancelled (handler abandoned)"),
        (e.TaskCancelled(step="a", attempt=0), "a cancelled"),
        (e.KeyBound(key="order-17", execution_id="e1"), "idempotency key order-17 belongs to e1"),
        (e.TasksAnnounced(tasks={}, worker="w1"), "tasks announced by w1: "),
    ],
)
def test_events_in_words(event: e.Event, words: str) -> None:
    """Each event is told in one line."""
    assert Teller().describe(event) == words


def test_how_long_an_attempt_took() -> None:
    """The end of an attempt says how long it took by its worker's clock, whenever that was recorded."""
    teller = Teller()
    teller.describe(e.TaskStarted(step="a", started_at=T0))
    assert teller.describe(e.TaskFailed(step="a", error=ERROR, ended_at=at(0.25))).startswith("a failed after 250 ms: ")
    teller.describe(e.TaskStarted(step="a", attempt=2, started_at=at(2)))
    assert teller.describe(e.TaskCompleted(step="a", attempt=2, ended_at=at(5))) == "a (attempt 2) completed in 3.0 s"


def test_descriptions_are_bounded() -> None:
    """However long an error's message is, its line is not."""
    long = ErrorInfo(type="execution_error", code="C" * 10_000, message="m" * 10_000)
    assert len(Teller().describe(e.ExecutionFailed(error=long))) < 500


@pytest.mark.parametrize(
    ("duration_ms", "words"),
    [
        (-5, "0 ms"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (59_940, "59.9 s"),
        (59_999, "1 min 0 s"),
        (200_000, "3 min 20 s"),
        (7_500_000, "2 h 5 min"),
    ],
)
def test_durations(duration_ms: float, words: str) -> None:
    """Durations are told in the unit that fits."""
    assert duration(duration_ms) == words
