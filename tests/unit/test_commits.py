"""The storage format: what stands in the log, byte for byte."""

import hashlib
import json
from datetime import UTC, datetime

import msgspec
import pytest

from esexec.domain import events as e
from esexec.domain.alerts import AlertCondition
from esexec.domain.commit import Cause, Commit, hash_of
from esexec.domain.errors import CorruptHistory
from esexec.domain.flow import Resource, ResourcePool, ResourceUsage
from esexec.domain.settings import NamespaceConfig, TaskInfo
from esexec.domain.sharing.requests import AskToBegin
from esexec.domain.strategies import Strategy
from esexec.log import codec
from tests.given import at, cancel, completed, due, failed, failure, given, start, step

GOLDEN = (
    b'{"v":1,"execution_id":"e1","n":4,"version":7,"time":"2026-01-01T00:00:01.500000Z",'
    b'"commands":[{"id":"completed/a/1-1","time":"2026-01-01T00:00:01Z"}],"actor":"ada","executor":"x1",'
    b'"prev":"00ff","events":['
    b'{"type":"task_started","step":"a","started_at":"2026-01-01T00:00:00Z","worker":"w"},'
    b'{"type":"task_completed","step":"a","attempt":2,"ended_at":"2026-01-01T00:00:01Z","output":{"k":[1,2.5,null,"\xc3\xa9"]}}]}'
)


def a_commit() -> Commit:
    return Commit(
        v=1,
        execution_id="e1",
        n=4,
        version=7,
        time=at(1.5),
        commands=(Cause("completed/a/1-1", at(1)),),
        actor="ada",
        executor="x1",
        prev="00ff",
        events=(
            e.TaskStarted(step="a", started_at=at(0), worker="w"),
            e.TaskCompleted(step="a", attempt=2, ended_at=at(1), output={"k": [1, 2.5, None, "é"]}),
        ),
    )


def test_a_commit_is_these_bytes() -> None:
    """Field names, their order, omitted defaults and times are a storage format that never changes."""
    assert codec.encode(a_commit()) == GOLDEN
    assert codec.decode(GOLDEN) == a_commit()


def test_the_hash_is_sha256_of_the_stored_bytes() -> None:
    """`prev` is the SHA-256 of the bytes before, in hexadecimal, so that any language can check the chain."""
    assert hash_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    history = given(start("a", "b"), completed("a"), completed("b")).stored
    previous = ""
    for one in history:
        assert json.loads(one.data).get("prev", "") == previous
        previous = hashlib.sha256(one.data).hexdigest()


RESOURCE = Resource("r2-1", "g", "gpu", 2.0)
USAGE = ResourceUsage("r2-1", "gpu", 2.0, 0.5, at(0), at(1), 0.25)
ASK = AskToBegin(key="task:t", max_executions=2, window_ms=1_000)

EVENTS: dict[str, e.Event] = {
    "execution_created": e.ExecutionCreated(plan=msgspec.Raw(b"{}"), plan_id="0", name="p"),
    "execution_started": e.ExecutionStarted(),
    "execution_completed": e.ExecutionCompleted(),
    "execution_failed": e.ExecutionFailed(error=failure(), failed_steps=("a",)),
    "execution_cancel_requested": e.ExecutionCancelRequested(grace_ms=10_000),
    "execution_cancelled": e.ExecutionCancelled(abandoned=("a",)),
    "task_scheduled": e.TaskScheduled(step="a"),
    "task_started": e.TaskStarted(step="a", started_at=at(0)),
    "task_completed": e.TaskCompleted(step="a", ended_at=at(0)),
    "task_failed": e.TaskFailed(step="a", error=failure(), will_retry=True),
    "task_rejected": e.TaskRejected(step="a", error=failure()),
    "task_timed_out": e.TaskTimedOut(step="a", timeout_ms=5, error=failure(), ended="killed"),
    "task_retry_scheduled": e.TaskRetryScheduled(step="a", attempt=2, delay_ms=5, due=at(0)),
    "task_skipped": e.TaskSkipped(step="a", attempt=0, reason="dependency_failed", because="b"),
    "task_cancelled": e.TaskCancelled(step="a", attempt=0),
    "task_cache_hit": e.TaskCacheHit(
        step="a", key="f00d", source_execution="e0", source_step="b", age_ms=5, found_at=at(0), worker="w"
    ),
    "key_bound": e.KeyBound(key="k", execution_id="e1"),
    "namespace_configured": e.NamespaceConfigured(config=NamespaceConfig(max_retries=1)),
    "tasks_announced": e.TasksAnnounced(tasks={"t": TaskInfo(queue="q", compensate="u")}),
    "execution_paused": e.ExecutionPaused(reason="lunch"),
    "execution_resumed": e.ExecutionResumed(),
    "execution_retried": e.ExecutionRetried(run=2, step="a"),
    "execution_forked": e.ExecutionForked(new_id="e2"),
    "execution_deadline_set": e.DeadlineSet(deadline=at(60)),
    "execution_deadline_exceeded": e.DeadlineExceeded(error=failure(), grace_ms=10_000),
    "checkpoint_created": e.CheckpointCreated(checkpoint_id="e1.7", by="task", metadata={"k": 1}),
    "checkpoint_failed": e.CheckpointFailed(message="no room", by="interval"),
    "checkpoint_restored": e.CheckpointRestored(
        checkpoint_id="e1.7", run=2, by="recovery", reason="r", abandoned=("a/1",), vars={"k": 1}
    ),
    "rollback_started": e.RollbackStarted(by="command", reason="r"),
    "execution_rolled_back": e.ExecutionRolledBack(undone=1, skipped=("b",), error=failure()),
    "task_held": e.TaskHeld(step="a", attempt=2),
    "task_overdue": e.TaskOverdue(step="a", attempt=2),
    "task_fallback_started": e.FallbackStarted(step="a", attempt=2, task="t"),
    "before_image_recorded": e.BeforeImageRecorded(step="a", run=2, image={"k": None}),
    "recovery_initiated": e.RecoveryInitiated(step="a", attempt=2, strategy="s", name="n", queue="q", timeout_ms=5),
    "recovery_started": e.RecoveryStarted(step="a", attempt=2, started_at=at(0), worker="w"),
    "recovery_completed": e.RecoveryCompleted(
        step="a", attempt=2, success=True, action="checkpoint_restore", then="restore", message="m", ended_at=at(0), vars={"k": 1}
    ),
    "compensation_scheduled": e.CompensationScheduled(step="a", attempt=2, task="t"),
    "compensation_started": e.CompensationStarted(step="a", attempt=2, started_at=at(0), worker="w"),
    "compensation_completed": e.CompensationCompleted(step="a", attempt=2, ended_at=at(0)),
    "compensation_failed": e.CompensationFailed(step="a", attempt=2, error=failure(), ended_at=at(0), retries_exhausted=True),
    "compensation_retry_scheduled": e.CompensationRetryScheduled(step="a", attempt=3, delay_ms=5, due=at(0)),
    "compensation_skipped": e.CompensationSkipped(step="a", attempt=0, reason="no_before_image"),
    "strategy_added": e.StrategyAdded(strategy=Strategy(id="s", applicable_errors=("HTTP_5*",), before_retries=True)),
    "strategy_removed": e.StrategyRemoved(strategy_id="s"),
    "plan_stored": e.PlanStored(plan_id="0", plan=msgspec.Raw(b"{}")),
    "plan_listed": e.PlanListed(plan_id="0", name="p", status="invalid", problem=failure(), query="q"),
    "task_granted": e.TaskGranted(step="a", by="concurrency", entity="_slots-1"),
    "resource_allocated": e.ResourceAllocated(step="a", resources=(RESOURCE,)),
    "resource_released": e.ResourceReleased(step="a", usage=(USAGE,)),
    "task_rate_limited": e.TaskRateLimited(step="a", entity="_limit-1", next_retry_at=at(1)),
    "task_waiting": e.TaskWaiting(step="a", by="resources", entity="_pools", ahead=2),
    "execution_queued": e.ExecutionQueued(entity="_slots-1"),
    "execution_granted": e.ExecutionGranted(entity="_slots-1", run=2),
    "request_queued": e.RequestQueued(request_id="x/a/1-1", ask=ASK, priority=7),
    "request_granted": e.RequestGranted(request_id="c1", resources=(RESOURCE,), until=at(9)),
    "request_dropped": e.RequestDropped(request_id="x/_/1-0", error=failure(), skipped=True),
    "grant_released": e.GrantReleased(request_id="c1", resources=("r2-1",), expired=True),
    "lease_renewed": e.LeaseRenewed(request_id="c1", until=at(9)),
    "pool_declared": e.PoolDeclared(pool=ResourcePool("g", "gpu", 4.0, cost_per_unit_second=0.5, attributes={"memory": 16})),
    "pool_removed": e.PoolRemoved(pool_id="g"),
    "alert_set": e.AlertSet(
        alert_id="hot", condition=AlertCondition("cpu_usage", "gt", 90.5, 30_000, source="w"), webhook="http://h"
    ),
    "alert_removed": e.AlertRemoved(alert_id="hot"),
    "compacted": e.Compacted(state=msgspec.Raw(b"{}")),
}
ON_THE_WIRE = {
    "execution_created": '{"type":"execution_created","plan":{},"plan_id":"0","name":"p"}',
    "execution_started": '{"type":"execution_started"}',
    "execution_completed": '{"type":"execution_completed"}',
    "execution_failed": '{"type":"execution_failed",'
    '"error":{"type":"execution_error","code":"BROKEN","message":"it is BROKEN"},"failed_steps":["a"]}',
    "execution_cancel_requested": '{"type":"execution_cancel_requested","grace_ms":10000}',
    "execution_cancelled": '{"type":"execution_cancelled","abandoned":["a"]}',
    "task_scheduled": '{"type":"task_scheduled","step":"a"}',
    "task_started": '{"type":"task_started","step":"a","started_at":"2026-01-01T00:00:00Z"}',
    "task_completed": '{"type":"task_completed","step":"a","ended_at":"2026-01-01T00:00:00Z"}',
    "task_failed": '{"type":"task_failed","step":"a",'
    '"error":{"type":"execution_error","code":"BROKEN","message":"it is BROKEN"},"will_retry":true}',
    "task_rejected": '{"type":"task_rejected","step":"a",'
    '"error":{"type":"execution_error","code":"BROKEN","message":"it is BROKEN"}}',
    "task_timed_out": '{"type":"task_timed_out","step":"a","timeout_ms":5,'
    '"error":{"type":"execution_error","code":"BROKEN","message":"it is BROKEN"},"ended":"killed"}',
    "task_retry_scheduled": '{"type":"task_retry_scheduled","step":"a","attempt":2,"delay_ms":5,"due":"2026-01-01T00:00:00Z"}',
    "task_skipped": '{"type":"task_skipped","step":"a","attempt":0,"reason":"dependency_failed","because":"b"}',
    "task_cache_hit": '{"type":"task_cache_hit","step":"a","key":"f00d",'
    '"source_execution":"e0","source_step":"b","age_ms":5,"found_at":"2026-01-01T00:00:00Z","worker":"w"}',
    "task_cancelled": '{"type":"task_cancelled","step":"a","attempt":0}',
    "key_bound": '{"type":"key_bound","key":"k","execution_id":"e1"}',
    "namespace_configured": '{"type":"namespace_configured","config":{"max_retries":1}}',
    "tasks_announced": '{"type":"tasks_announced","tasks":{"t":{"queue":"q","compensate":"u"}}}',
    "execution_paused": '{"type":"execution_paused","reason":"lunch"}',
    "execution_resumed": '{"type":"execution_resumed"}',
    "execution_retried": '{"type":"execution_retried","run":2,"step":"a"}',
    "execution_forked": '{"type":"execution_forked","new_id":"e2"}',
    "execution_deadline_set": '{"type":"execution_deadline_set","deadline":"2026-01-01T00:01:00Z"}',
    "execution_deadline_exceeded": '{"type":"execution_deadline_exceeded","error":{"type":"execution_error",'
    '"code":"BROKEN","message":"it is BROKEN"},"grace_ms":10000}',
    "checkpoint_created": '{"type":"checkpoint_created","checkpoint_id":"e1.7","by":"task","metadata":{"k":1}}',
    "checkpoint_failed": '{"type":"checkpoint_failed","message":"no room","by":"interval"}',
    "checkpoint_restored": '{"type":"checkpoint_restored","checkpoint_id":"e1.7",'
    '"run":2,"by":"recovery","reason":"r","abandoned":["a/1"],"vars":{"k":1}}',
    "rollback_started": '{"type":"rollback_started","by":"command","reason":"r"}',
    "execution_rolled_back": '{"type":"execution_rolled_back","undone":1,"skipped":["b"],'
    '"error":{"type":"execution_error","code":"BROKEN","message":"it is BROKEN"}}',
    "task_held": '{"type":"task_held","step":"a","attempt":2}',
    "task_overdue": '{"type":"task_overdue","step":"a","attempt":2}',
    "task_fallback_started": '{"type":"task_fallback_started","step":"a","attempt":2,"task":"t"}',
    "before_image_recorded": '{"type":"before_image_recorded","step":"a","run":2,"image":{"k":null}}',
    "recovery_initiated": '{"type":"recovery_initiated","step":"a","attempt":2,'
    '"strategy":"s","name":"n","queue":"q","timeout_ms":5}',
    "recovery_started": '{"type":"recovery_started","step":"a","attempt":2,"started_at":"2026-01-01T00:00:00Z","worker":"w"}',
    "recovery_completed": '{"type":"recovery_completed","step":"a","attempt":2,'
    '"success":true,"action":"checkpoint_restore","then":"restore","message":"m","ended_at":"2026-01-01T00:00:00Z","vars":{"k":1}}',
    "compensation_scheduled": '{"type":"compensation_scheduled","step":"a","attempt":2,"task":"t"}',
    "compensation_started": '{"type":"compensation_started","step":"a","attempt":2,'
    '"started_at":"2026-01-01T00:00:00Z","worker":"w"}',
    "compensation_completed": '{"type":"compensation_completed","step":"a","attempt":2,"ended_at":"2026-01-01T00:00:00Z"}',
    "compensation_failed": '{"type":"compensation_failed","step":"a","attempt":2,'
    '"error":{"type":"execution_error","code":"BROKEN","message":"it is BROKEN"},'
    '"ended_at":"2026-01-01T00:00:00Z","retries_exhausted":true}',
    "compensation_retry_scheduled": '{"type":"compensation_retry_scheduled","step":"a",'
    '"attempt":3,"delay_ms":5,"due":"2026-01-01T00:00:00Z"}',
    "compensation_skipped": '{"type":"compensation_skipped","step":"a","attempt":0,"reason":"no_before_image"}',
    "strategy_added": '{"type":"strategy_added","strategy":{"id":"s","applicable_errors":["HTTP_5*"],"before_retries":true}}',
    "strategy_removed": '{"type":"strategy_removed","strategy_id":"s"}',
    "plan_stored": '{"type":"plan_stored","plan_id":"0","plan":{}}',
    "plan_listed": '{"type":"plan_listed","plan_id":"0","name":"p",'
    '"status":"invalid","problem":{"type":"execution_error","code":"BROKEN","message":"it is BROKEN"},"query":"q"}',
    "task_granted": '{"type":"task_granted","step":"a","by":"concurrency","entity":"_slots-1"}',
    "resource_allocated": '{"type":"resource_allocated","step":"a","resources":[{"id":"r2-1","pool":"g","type":"gpu",'
    '"amount":2.0}]}',
    "resource_released": '{"type":"resource_released","step":"a","usage":[{"resource_id":"r2-1","resource_type":"gpu",'
    '"amount_used":2.0,"cost":0.5,"start_time":"2026-01-01T00:00:00Z","end_time":"2026-01-01T00:00:01Z","efficiency":0.25}]}',
    "task_rate_limited": '{"type":"task_rate_limited","step":"a","entity":"_limit-1","next_retry_at":"2026-01-01T00:00:01Z"}',
    "task_waiting": '{"type":"task_waiting","step":"a","by":"resources","entity":"_pools","ahead":2}',
    "execution_queued": '{"type":"execution_queued","entity":"_slots-1"}',
    "execution_granted": '{"type":"execution_granted","entity":"_slots-1","run":2}',
    "request_queued": '{"type":"request_queued","request_id":"x/a/1-1","ask":{"type":"rate_limit","key":"task:t",'
    '"max_executions":2,"window_ms":1000},"priority":7}',
    "request_granted": '{"type":"request_granted","request_id":"c1","resources":[{"id":"r2-1","pool":"g","type":"gpu",'
    '"amount":2.0}],"until":"2026-01-01T00:00:09Z"}',
    "request_dropped": '{"type":"request_dropped","request_id":"x/_/1-0","error":{"type":"execution_error","code":"BROKEN",'
    '"message":"it is BROKEN"},"skipped":true}',
    "grant_released": '{"type":"grant_released","request_id":"c1","resources":["r2-1"],"expired":true}',
    "lease_renewed": '{"type":"lease_renewed","request_id":"c1","until":"2026-01-01T00:00:09Z"}',
    "pool_declared": '{"type":"pool_declared","pool":{"id":"g","type":"gpu","capacity":4.0,"cost_per_unit_second":0.5,'
    '"attributes":{"memory":16}}}',
    "pool_removed": '{"type":"pool_removed","pool_id":"g"}',
    "alert_set": '{"type":"alert_set","alert_id":"hot","condition":{"metric":"cpu_usage","operator":"gt","threshold":90.5,'
    '"duration_ms":30000,"source":"w"},"webhook":"http://h"}',
    "alert_removed": '{"type":"alert_removed","alert_id":"hot"}',
    "compacted": '{"type":"compacted","state":{}}',
}


@pytest.mark.parametrize("type", e.TYPES)
def test_an_event_is_these_bytes(type: str) -> None:
    """The union is closed and each of its types is written so; what is told by default is left out."""
    assert msgspec.json.encode(EVENTS[type]).decode() == ON_THE_WIRE[type]
    assert e.type_of(EVENTS[type]) == type


def test_no_event_is_forgotten_here() -> None:
    """Every type of the union has its golden bytes."""
    assert set(e.TYPES) == set(EVENTS) == set(ON_THE_WIRE)


def test_causes_name_what_a_commit_was_decided_upon() -> None:
    """Commands by their id, reports as `<kind>/<step>/<run>-<attempt>`, timers as `due/<name>`, each with its server time."""
    history = given(start("a", "b"), failed("a"))
    history.happen(due("a"))
    history.happen(cancel("c2"))
    causes = [[(cause.id, cause.time) for cause in commit.commands] for commit in history.commits]
    assert causes == [[("c1", at(1))], [("failed/a/1-1", at(2))], [("due/6", at(3))], [("c2", at(4))]]


def test_versions_and_numbers_are_gapless() -> None:
    """A commit's version is that of its first event; the next one's follows its last."""
    history = given(start("a", step("b", "a")), completed("a"), completed("b"))
    assert [(commit.n, commit.version, len(commit.events)) for commit in history.commits] == [(1, 1, 3), (2, 4, 3), (3, 7, 3)]


def test_times_are_utc_whatever_was_given() -> None:
    """A time with another offset is the same moment after it was stored."""
    other = datetime.fromisoformat("2026-01-01T02:00:00+02:00")
    event = e.TaskCompleted(step="a", ended_at=other)
    stored = codec.decode(codec.encode(msgspec.structs.replace(a_commit(), events=(event,)))).events[0]
    assert isinstance(stored, e.TaskCompleted)
    assert stored.ended_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("missing", ["v", "execution_id", "n", "version", "time", "events"])
def test_a_commit_lacks_nothing(missing: str) -> None:
    """Without one of its required fields it is no commit."""
    document = json.loads(GOLDEN)
    del document[missing]
    with pytest.raises(CorruptHistory):
        codec.decode(json.dumps(document).encode())


def test_a_field_that_is_not_known_is_left_alone() -> None:
    """A later esexec may add optional fields to what is stored; older ones read on."""
    assert codec.decode(GOLDEN[:-1] + b',"later":1}') == a_commit()
