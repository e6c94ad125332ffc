"""The timeline: commits in, entries out."""

from datetime import timedelta
from typing import get_args

import msgspec
import pytest

from esexec.domain import events as e
from esexec.domain.alerts import AlertCondition
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import Resource, ResourcePool, ResourceUsage
from esexec.domain.sharing.requests import AskToBegin
from esexec.domain.strategies import RecoveryVerb, Strategy
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
        (
            e.TaskCacheHit(step="a", key="f", source_execution="e0", source_step="b", age_ms=2_500, found_at=T0),
            "a found in the cache: the output of b in execution e0, 2.5 s old",
        ),
        (e.TaskFailed(step="a", error=ERROR, will_retry=True), "a failed: [HTTP_503] busy…"),
        (
            e.TaskFailed(step="a", attempt=4, error=ERROR, retries_exhausted=True),
            "a (attempt 4) failed: [HTTP_503] busy…; no retries left",
        ),
        (e.TaskRejected(step="a", error=ERROR, instead="fallback"), "a rejected: [HTTP_503] busy…; its fallback is tried"),
        (
            e.TaskTimedOut(step="a", timeout_ms=30_000, error=ERROR, ended="cancelled"),
            "a ran past its timeout of 30.0 s (cancelled)",
        ),
        (e.TaskRetryScheduled(step="a", attempt=2, delay_ms=1_000, due=T0), "a is tried again in 1.0 s (attempt 2)"),
        (e.TaskSkipped(step="b", reason="dependency_failed", because="a"), "b skipped: a failed"),
        (e.TaskSkipped(step="b", reason="condition"), "b skipped: condition"),
        (e.TaskCancelled(step="a", ended="abandoned"), "a cancelled (handler abandoned)"),
        (e.TaskCancelled(step="a", attempt=0), "a cancelled"),
        (e.TaskSkipped(step="b", reason="recovery"), "b skipped: recovery"),
        (
            e.TaskFailed(step="a", error=ERROR, retries_exhausted=True, instead="recovery"),
            "a failed: [HTTP_503] busy…; no retries left; a recovery strategy is asked",
        ),
        (e.TaskFailed(step="a", error=ERROR, instead="fallback"), "a failed: [HTTP_503] busy…; its fallback is tried"),
        (e.TaskOverdue(step="a", attempt=2), "a (attempt 2) was not begun in time and is taken back"),
        (
            e.TaskTimedOut(step="a", timeout_ms=5_000, error=ErrorInfo(type="timeout_error", code="queue_timeout", message="")),
            "a was not begun within 5.0 s",
        ),
        (e.FallbackStarted(step="a", attempt=5, task="b"), "a is done by its fallback b instead"),
        (e.BeforeImageRecorded(step="a", image={}), "a recorded what was before"),
        (e.ExecutionPaused(reason="lunch"), "execution paused: lunch"),
        (e.ExecutionResumed(), "execution resumed"),
        (e.ExecutionRetried(run=2), "execution retried, as run 2"),
        (e.ExecutionRetried(run=3, step="a"), "execution retried, as run 3: a again"),
        (e.ExecutionForked(new_id="e2"), "carried on as execution e2"),
        (e.DeadlineSet(deadline=T0), "must end by 2026-01-01 00:00:00 UTC"),
        (e.DeadlineExceeded(error=ERROR, grace_ms=1), "deadline exceeded: [HTTP_503] busy…"),
        (e.CheckpointCreated(checkpoint_id="e1.7"), "checkpoint e1.7 created"),
        (e.CheckpointCreated(checkpoint_id="e1.7", by="interval"), "checkpoint e1.7 created at its interval"),
        (e.CheckpointFailed(message="too many", by="task"), "checkpoint not created after a task: too many"),
        (e.CheckpointRestored(checkpoint_id="e1.7", run=2, reason="oops"), "restored to checkpoint e1.7, as run 2: oops"),
        (
            e.CheckpointRestored(checkpoint_id="e1.7", run=2, by="recovery"),
            "restored to checkpoint e1.7 by a recovery strategy, as run 2",
        ),
        (e.RollbackStarted(), "rollback started"),
        (e.RollbackStarted(by="command", reason="wrong city"), "rollback started on command: wrong city"),
        (e.ExecutionRolledBack(undone=1), "execution rolled back: 1 step undone"),
        (e.ExecutionRolledBack(undone=2, skipped=("a", "b")), "execution rolled back: 2 steps undone; nothing undoes a, b"),
        (
            e.ExecutionFailed(error=ERROR, rollback_status="partial", not_undone=("a",)),
            "execution failed: [HTTP_503] busy…; rolled back in part, not undone: a",
        ),
        (
            e.ExecutionCancelled(rollback_status="partial", not_undone=("a", "b")),
            "execution cancelled; rolled back in part, not undone: a, b",
        ),
        (
            e.RecoveryInitiated(step="a", attempt=5, strategy="net", name="Network"),
            "recovery strategy Network is asked about a",
        ),
        (e.TaskHeld(step="a", attempt=2), "a (attempt 2) is held back while the execution is paused"),
        (e.RecoveryInitiated(step="a", attempt=5, strategy="net"), "recovery strategy net is asked about a"),
        (e.RecoveryStarted(step="a", attempt=5, started_at=T0, worker="w1"), "recovery of a started on w1"),
        (
            e.RecoveryCompleted(step="a", attempt=5, success=True, action="retry", then="retry", message="waited"),
            "recovery of a ended with “retry”: waited; it is tried again",
        ),
        (
            e.RecoveryCompleted(step="a", attempt=5, success=False, action="abort", then="fail"),
            "recovery of a ended with “abort”; it has failed",
        ),
        (
            e.RecoveryCompleted(step="a", attempt=5, success=False, action="retry", then="recovery", message="no idea"),
            "recovery of a ended without help: no idea; another strategy is asked",
        ),
        (e.CompensationScheduled(step="a", attempt=2, task="undo_a"), "undoing of a by undo_a scheduled"),
        (e.CompensationStarted(step="a", attempt=2, started_at=T0, worker="w1"), "undoing of a started on w1"),
        (e.CompensationCompleted(step="a", attempt=2, ended_at=T0), "a undone"),
        (
            e.CompensationFailed(step="a", attempt=2, error=ERROR, retries_exhausted=True),
            "undoing of a failed: [HTTP_503] busy…; no retries left",
        ),
        (
            e.CompensationFailed(
                step="a",
                attempt=2,
                error=ErrorInfo(type="execution_error", code="cancelled", message="the rollback was cancelled"),
            ),
            "undoing of a given up: the rollback was cancelled",
        ),
        (
            e.CompensationRetryScheduled(step="a", attempt=3, delay_ms=1_000, due=T0),
            "undoing of a is tried again in 1.0 s (attempt 3)",
        ),
        (e.CompensationSkipped(step="a", reason="no_compensation"), "a is not undone: nothing is known that undoes it"),
        (e.CompensationSkipped(step="a", reason="no_before_image"), "a is not undone: what it was before was not recorded"),
        (e.StrategyAdded(strategy=Strategy(id="net", applicable_errors=("HTTP_5*",))), "recovery strategy net added for HTTP_5*"),
        (e.TaskGranted(step="a", by="concurrency", entity="_slots-1"), "a has a slot of its concurrency key"),
        (e.TaskGranted(step="a", by="rate_limit", entity="_limit-1"), "a has its turn within its rate limit"),
        (
            e.TaskRateLimited(step="a", attempt=2, entity="_limit-1", next_retry_at=T0),
            "a (attempt 2) waits for its turn within its rate limit, not before 00:00:00",
        ),
        (e.TaskWaiting(step="a", by="resources", entity="_pools", ahead=2), "a waits for resources, behind 2 others"),
        (e.ResourceAllocated(step="a", resources=(Resource("r1", "g", "gpu", 2.0),)), "a was allocated 2 gpu of g"),
        (
            e.ResourceReleased(step="a", usage=(ResourceUsage("r1", "gpu", 2.0, 0.5, T0, at(1)),)),
            "a released 2 gpu, cost 0.5",
        ),
        (e.ExecutionQueued(entity="_slots-1"), "execution waits for a slot of its concurrency key"),
        (e.ExecutionGranted(entity="_slots-1"), "execution has a slot of its concurrency key"),
        (
            e.RequestQueued(request_id="x/a/1-1", ask=AskToBegin(key="k", max_executions=1, window_ms=1)),
            "x/a/1-1 waits for its turn",
        ),
        (e.RequestGranted(request_id="c1", resources=(Resource("r1", "g", "gpu", 2.0),)), "c1 was granted 2 gpu of g"),
        (e.RequestDropped(request_id="x/a/1-1", error=ERROR), "x/a/1-1 waits no more: [HTTP_503] busy…"),
        (e.GrantReleased(request_id="c1", expired=True), "c1 lost its lease"),
        (e.LeaseRenewed(request_id="c1", until=T0), "c1 keeps its resources until 00:00:00"),
        (e.PoolDeclared(pool=ResourcePool("g", "gpu", 4.0)), "pool g has 4 gpu"),
        (e.PoolRemoved(pool_id="g"), "pool g removed"),
        (
            e.AlertSet(alert_id="hot", condition=AlertCondition("cpu_usage", "gt", 90, 30_000)),
            "alert hot set: cpu_usage > 90 for 30.0 s",
        ),
        (e.AlertRemoved(alert_id="hot"), "alert hot removed"),
        (e.Compacted(state=msgspec.Raw(b"{}")), "all of it was written down, and goes on from there"),
        (e.StrategyRemoved(strategy_id="net"), "recovery strategy net removed"),
        (e.PlanStored(plan_id="f" * 64, plan=msgspec.Raw(b"{}")), "plan ffffffffffff stored"),
        (
            e.PlanListed(plan_id="f" * 64, name="p", status="invalid", problem=ERROR),
            "plan p (ffffffffffff) is invalid: [HTTP_503] busy…",
        ),
        (
            e.ExecutionCreated(
                plan=msgspec.Raw(b"{}"), plan_id="", name="p", start_at=T0, parent="e0/s", forked_from="e9", owner="ada"
            ),
            "execution of p created by ada, started by e0/s, carries on from e9, not to start before 2026-01-01 00:00:00 UTC",
        ),
        (e.KeyBound(key="order-17", execution_id="e1"), "idempotency key order-17 belongs to e1"),
        (e.TasksAnnounced(tasks={}, worker="w1", schemas={"a": {}}), "tasks announced by w1: a"),
        (e.TasksAnnounced(tasks={}, any_task=True), "tasks announced by a worker: any other"),
        (
            e.ExecutionCreated(plan=msgspec.Raw(b"{}"), plan_id="", name="p", unannounced=("a", "b")),
            "execution of p created; no worker has announced a, b",
        ),
    ],
)
def test_events_in_words(event: e.Event, words: str) -> None:
    """Each event is told in one line."""
    assert Teller().describe(event) == words


def test_no_event_is_told_by_its_type_alone() -> None:
    """Every event type has words of its own, for which there is an example above."""
    (mark,) = [mark for mark in test_events_in_words.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    told = {e.type_of(event) for event, _ in mark.args[1]}
    assert set(e.TYPES) - told == {"namespace_configured"}


def test_how_long_an_undoing_took() -> None:
    """The end of an attempt to undo a step, and of a strategy's advice, say how long it took."""
    teller = Teller()
    teller.describe(e.CompensationStarted(step="a", attempt=2, started_at=T0))
    assert teller.describe(e.CompensationCompleted(step="a", attempt=2, ended_at=at(2))) == "a undone in 2.0 s"
    teller.describe(e.RecoveryStarted(step="b", attempt=5, started_at=T0))
    ended = e.RecoveryCompleted(step="b", attempt=5, success=True, action="skip", then="skip", ended_at=at(2))
    assert teller.describe(ended) == "recovery of b ended after 2.0 s with “skip”; it is skipped"


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


@pytest.mark.parametrize("then", get_args(e.AfterRecovery))
@pytest.mark.parametrize("action", get_args(RecoveryVerb))
def test_whatever_a_strategy_says_there_are_words_for_it(then: e.AfterRecovery, action: RecoveryVerb) -> None:
    """A word that is missing would break the telling of a lawful history."""
    for success in (True, False):
        told = Teller().describe(e.RecoveryCompleted(step="a", attempt=2, success=success, action=action, then=then))
        assert told.startswith("recovery of a ended with")
