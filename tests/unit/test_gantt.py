"""Where the time went: a bar per attempt, its spans one behind the other."""

from datetime import datetime

import msgspec

from esexec.domain.decider import Surroundings
from esexec.domain.settings import TaskInfo
from esexec.domain.strategies import Strategy
from esexec.views import Bar, Gantt
from projections.gantt import gantt
from tests.given import (
    History,
    Report,
    advised,
    at,
    cancel,
    checkpoint,
    completed,
    due,
    failed,
    fatal,
    given,
    granted,
    pause,
    restore,
    resume,
    start,
    started,
    step,
    undone,
    waits,
    withdrawn,
)


def chart(history: History, seconds: float | None = None) -> Gantt:
    found = gantt(history.commits, None if seconds is None else at(seconds))
    assert found is not None
    return found


def told(bar: Bar) -> list[tuple[str, float, float | None]]:
    """The spans, in seconds of the test."""
    return [(f"{one.kind} {one.by}".strip(), _s(one.start), None if one.end is None else _s(one.end)) for one in bar.spans]


def _s(time: datetime) -> float:
    return (time - at(0)).total_seconds()


def test_queued_running_and_back_off() -> None:
    """An attempt waits for a worker, runs; the delay before a retry belongs to the attempt that it delays."""
    history = History()
    history.happen(start("a", config={"jitter": 0.0}), when=1)
    history.happen(lost_at_work("a"), when=4)
    history.happen(due("a"), when=5)
    history.happen(completed("a", None, 2, began=7, ended=9), when=9)
    first, second = chart(history).bars
    assert (first.attempt, first.outcome, told(first)) == (1, "failed", [("queued", 1, 3), ("running", 3, 4)])
    assert (second.attempt, second.outcome) == (2, "completed")
    assert told(second) == [("back_off", 4, 5), ("queued", 5, 7), ("running", 7, 9)]


def lost_at_work(step: str) -> Report:
    """A failure that says when it ran: from 3 to 4."""
    report, name, attempt = failed(step)
    return msgspec.structs.replace(report, started_at=at(3), ended_at=at(4)), name, attempt


def test_what_must_be_granted_is_waited_for() -> None:
    """Until the last grant an attempt waits, for one thing after the other; only then for a worker."""
    history = History()
    gated = step("a", rate_limit={"max_executions": 1, "window_ms": 1_000}, concurrency={"key": "k"})
    history.happen(start(gated), when=0)
    history.happen(waits("a", by="concurrency"), when=1)
    history.happen(granted("a", by="concurrency", entity="_slots-1"), when=3)
    history.happen(granted("a"), when=5)
    history.happen(completed("a", began=6, ended=8), when=8)
    (bar,) = chart(history).bars
    assert told(bar) == [("waiting concurrency", 0, 3), ("waiting rate_limit", 3, 5), ("queued", 5, 6), ("running", 6, 8)]


def test_a_pause_holds_what_nobody_has() -> None:
    """What a pause took back is held until it is resumed; what runs goes on; the execution's own pause is told as well."""
    history = History()
    history.happen(start("a", "b", plan_fields={"parallel": True}), when=0)
    history.happen(started("a", began=1), when=2)
    history.happen(pause(), when=3)
    history.happen(withdrawn("b", pause=history.state.pause), when=4)
    history.happen(resume(), when=7)
    history.happen(completed("b", began=8, ended=9), when=9)
    found = chart(history, 11)
    a, b = found.bars
    assert told(a) == [("queued", 0, 1), ("running", 1, None)]
    assert told(b) == [("queued", 0, 4), ("held", 4, 7), ("queued", 7, 8), ("running", 8, 9)]
    assert [(one.kind, _s(one.start), one.end and _s(one.end)) for one in found.execution] == [("held", 3, 7)]
    assert (found.start, found.end, found.as_of) == (at(0), at(11), at(11))


def test_an_execution_waits_for_its_start() -> None:
    """Until its start time the execution as a whole is queued."""
    found = chart(given(start("a", start_at=at(60))), 30)
    assert [(one.kind, one.start, one.end) for one in found.execution] == [("queued", at(1), None)]
    assert found.bars == []


def test_every_purpose_has_its_bars() -> None:
    """What a strategy is asked, a fallback, an undoing: each is an attempt, and told as such."""
    strategies = (Strategy(id="any", applicable_errors=("FATAL",)),)
    around = Surroundings(tasks={"a": TaskInfo(compensate="undo_a")}, strategies=strategies)
    story = [start("a", step("b", "a", fallback="c")), completed("a"), fatal("b"), advised("b", "fallback"), fatal("b", 3)]
    bars = chart(given(*story, undone("a"), around=around)).bars
    assert [(bar.step, bar.attempt, bar.purpose, bar.outcome) for bar in bars] == [
        ("a", 1, "task", "completed"),
        ("b", 1, "task", "failed"),
        ("b", 2, "recovery", "completed"),
        ("b", 3, "fallback", "failed"),
        ("a", 2, "compensation", "completed"),
    ]


def test_an_end_ends_all_bars() -> None:
    """What a cancel gave up on, nobody waits for any more; a retry that was waited for is cancelled."""
    history = given(start("a", "b", plan_fields={"parallel": True}), started("a"), failed("b"), cancel(), due())
    outcomes = {(bar.step, bar.attempt): bar.outcome for bar in chart(history).bars}
    assert history.state.ended
    assert outcomes == {("a", 1): "cancelled", ("b", 1): "failed", ("b", 2): "cancelled"}
    assert all(span.end is not None for bar in chart(history).bars for span in bar.spans)


def test_what_a_restore_leaves_behind_is_abandoned() -> None:
    """The attempts of a run that is over are waited for by nobody; the new run has bars of its own."""
    history = given(start("a", "b"), checkpoint(), started("a"), restore("e1.4"))
    assert [(bar.step, bar.run, bar.outcome) for bar in chart(history).bars] == [("a", 1, "abandoned"), ("a", 2, None)]


def test_a_history_without_commits_has_no_chart() -> None:
    """Nothing happened: there is nothing to draw."""
    assert gantt([]) is None
