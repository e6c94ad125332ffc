"""What an attempt, or an execution, must be granted before it begins: held until then, and given back at the end."""

from typing import Any

import pytest

from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain.admission import decide_grant
from esexec.domain.decision import Decision, Surroundings
from esexec.domain.effects import effects_of
from esexec.domain.errors import ExecutionCancelled
from esexec.domain.flow import RateLimit
from esexec.domain.settings import NamespaceConfig, TaskInfo
from esexec.domain.sharing.requests import AskForResources, AskForSlot, AskToBegin, entity_of
from esexec.results import Err, outcome_of, result_of
from tests.given import (
    History,
    at,
    cancel,
    checkpoint,
    completed,
    denied,
    due,
    failed,
    fatal,
    given,
    granted,
    pause,
    restore,
    resume,
    retry,
    start,
    step,
    waits,
    withdrawn,
)

LIMITED = step("a", rate_limit={"max_executions": 1, "window_ms": 1_000, "key": "${params.user}"}, params={"user": "ada"})
GPU = step("a", resources=[{"type": "gpu", "amount": 2, "priority": 8}])
OF_KEY = {"config": {"concurrency": {"key": "input.user", "limit": 3}}}


def effects(history: History) -> list[Any]:
    """What the last commit asks for."""
    commit = history.commits[-1]
    return list(effects_of(commit.events, commit.version, history.state, commit.n))


def of(kind: type, found: list[Any]) -> list[Any]:
    return [effect for effect in found if isinstance(effect, kind)]


def test_an_attempt_with_a_rate_limit_asks_before_it_is_handed_out() -> None:
    """Its scheduling asks the limit of its key; only the grant hands it out."""
    history = given(start(LIMITED))
    (ask,) = of(fx.Ask, effects(history))
    assert isinstance(ask.message.ask, AskToBegin)
    assert ask.message.ask.key == "key:ada"
    assert not of(fx.DispatchAttempt, effects(history))
    history.happen(granted("a"))
    assert [one.step for one in of(fx.DispatchAttempt, effects(history))] == ["a"]


def test_one_that_has_to_wait_is_rate_limited_and_uses_no_retry() -> None:
    """While it waits it says from when on; then it is as if it had not waited, but for the note that it did."""
    history = given(start(LIMITED), waits("a", until=7))
    waiting = history.state.steps[0]
    assert (waiting.status, waiting.next_retry_at, waiting.attempt) == ("rate_limited", at(7), 1)
    history.happen(granted("a"))
    history.happen(completed("a", 1))
    done = history.state.steps[0]
    assert (done.status, done.was_rate_limited, done.retries, done.next_retry_at) == ("completed", True, 0, None)


def test_a_grant_in_advance_of_a_pause_is_used_after_it() -> None:
    """During a pause nothing is handed out: a grant is kept, and the resume hands the attempt out."""
    history = given(start(LIMITED), pause(), granted("a"))
    assert not of(fx.DispatchAttempt, effects(history))
    history.happen(resume())
    assert of(fx.DispatchAttempt, effects(history))


def test_a_resume_asks_again_for_what_is_missing() -> None:
    """An attempt that waited for its grant through a pause is not handed out by the resume: it asks once more."""
    history = given(start(LIMITED), pause(), resume())
    assert of(fx.Ask, effects(history))
    assert not of(fx.DispatchAttempt, effects(history))


def test_every_attempt_asks_again() -> None:
    """A retry is one more execution of the handler: it needs a grant of its own."""
    history = given(start(LIMITED, config={"jitter": 0.0}), granted("a"), failed("a"), due("a"))
    assert [(one.step, one.attempt) for one in of(fx.Ask, effects(history))] == [("a", 2)]


def test_denied_is_failed_at_once() -> None:
    """What is not granted fails the attempt, with the reason, and is not retried."""
    history = given(start(LIMITED), denied("a"))
    assert history.state.status == "failed"
    assert history.state.error is not None
    assert history.state.error.code == "rate_limited"
    assert history.state.steps[0].was_rate_limited, "it was blocked, though it did not wait"


def test_only_what_a_rate_limit_blocked_was_rate_limited() -> None:
    """Not what was denied for want of something else."""
    history = given(start(GPU), denied("a", by="resources", code="resource_unavailable"))
    assert (history.state.status, history.state.steps[0].was_rate_limited) == ("failed", False)


@pytest.mark.parametrize("end", [completed("a"), fatal("a"), cancel()])
def test_what_an_attempt_holds_is_given_back_when_it_ends(end: Any) -> None:
    """However it ends, its slot and its resources are given back by that commit, and the use of the resources is told."""
    both = step("a", resources=[{"type": "gpu", "amount": 2}], concurrency={"key": "one"})
    history = given(start(both, config={"max_retries": 0}), granted("a", by="concurrency", entity="_slots-1"))
    history.happen(granted("a", by="resources", entity="_pools"))
    history.happen(end)
    if end == cancel():
        assert not of(fx.GiveBack, effects(history))  # a worker may have it still
        history.happen(completed("a"))
    back = [(one.entity, one.step, one.attempt) for one in of(fx.GiveBack, effects(history))]
    assert back == [("_slots-1", "a", "1-1"), ("_pools", "a", "1-1")]
    (told,) = [event for event in history.events if isinstance(event, e.ResourceReleased)]
    assert [one.resource_id for one in told.usage] == ["r1"]


def test_a_request_is_withdrawn_with_its_attempt() -> None:
    """Cancelled while it waits, the execution ends at once, and the request is taken back."""
    history = given(start(GPU), waits("a", by="resources"), cancel())
    assert history.state.status == "cancelled"
    assert [(one.entity, one.step) for one in of(fx.GiveBack, effects(history))] == [("_pools", "a")]


def test_resources_are_asked_for_together() -> None:
    """All requirements of a step are one request, with the highest of their priorities."""
    (ask,) = of(fx.Ask, effects(given(start(GPU))))
    assert isinstance(ask.message.ask, AskForResources)
    assert ask.message.priority == 8


def test_a_handler_is_told_what_it_was_granted() -> None:
    """The dispatch names the allocated resources."""
    history = given(start(GPU), granted("a", by="resources", entity="_pools"))
    (dispatch,) = of(fx.DispatchAttempt, effects(history))
    assert [one.pool for one in dispatch.message.allocated] == ["pool"]


def test_a_restore_gives_back_what_the_run_before_held() -> None:
    """Attempts that nobody waits for any more hold nothing."""
    held = step("a", concurrency={"key": "one"})
    history = given(start(held), checkpoint(), granted("a", by="concurrency", entity="_slots-1"), restore("e1.4"))
    assert history.state.run == 2
    assert [(one.entity, one.attempt) for one in of(fx.GiveBack, effects(history))] == [("_slots-1", "1-1")]


def test_a_grant_for_a_closed_attempt_is_stale() -> None:
    """Who is told of it gives it back."""
    history = given(start(LIMITED), cancel())
    answer, step_id, attempt = granted("a")
    verdict = decide_grant(Decision(history.state, at(99)), answer, step_id, attempt, at(99))  # type: ignore[arg-type]
    assert verdict.kind == "stale"


def test_an_execution_with_a_key_begins_with_its_slot() -> None:
    """Created, it asks; granted, its first step is scheduled; ended, it gives the slot back."""
    history = given(start("a", input={"user": "ada"}, plan_fields=OF_KEY))
    (ask,) = of(fx.Ask, effects(history))
    assert isinstance(ask.message.ask, AskForSlot)
    assert (ask.step, ask.message.ask.scope, ask.message.ask.key, ask.message.ask.limit) == ("_", "plan:p", "ada", 3)
    assert history.state.status == "pending"
    history.happen(granted("_", 0, by="concurrency", entity="_slots-1"))
    assert history.state.status == "running"
    history.happen(completed("a"))
    back = [(one.entity, one.step, one.attempt) for one in of(fx.GiveBack, effects(history))]
    assert back == [(entity_of(ask.message.ask), "_", "1-0")]


def test_a_retry_of_an_execution_asks_for_its_slot_again() -> None:
    """A further run is one more that runs at the same time: nothing of it is scheduled before its grant."""
    history = given(start("a", input={"user": "ada"}, plan_fields=OF_KEY), granted("_", 0, by="concurrency"), fatal("a"), retry())
    assert of(fx.Ask, effects(history))
    assert not of(fx.DispatchAttempt, effects(history))
    history.happen(granted("_", 0, run=2, by="concurrency"))
    assert of(fx.DispatchAttempt, effects(history))


@pytest.mark.parametrize("named", [None, 130.0], ids=["no deadline", "a deadline"])
@pytest.mark.parametrize("again", ["retry", "restore"])
def test_a_timeout_does_not_count_while_a_run_waits_for_its_slot(again: str, named: float | None) -> None:
    """Whichever run it is: how long it may take counts from the grant of its slot on. A deadline that was named counts always."""
    timed = OF_KEY["config"] | {"execution_timeout_ms": 60_000, "enable_rollback": False}
    deadline = None if named is None else at(named)
    history = given(start("a", "b", input={"user": "ada"}, plan_fields={"config": timed}, deadline=deadline))
    assert history.state.deadline == deadline
    history.happen(granted("_", 0, by="concurrency"), when=5)
    assert history.state.deadline == at(65)
    history.happen(checkpoint(), when=6)
    history.happen(fatal("a"), when=7)
    (point,) = history.state.checkpoints
    history.happen(retry() if again == "retry" else restore(point), when=10)
    assert (history.state.run, history.state.deadline) == (2, deadline)
    history.happen(granted("_", 0, run=2, by="concurrency"), when=100)
    assert history.state.deadline == (deadline or at(160))
    assert [timer.due for timer in history.state.timers.values() if timer.kind == "deadline"] == [deadline or at(160)]


def test_an_execution_waits_for_its_slot_with_its_own_priority() -> None:
    """That of the call, else of the plan, else of the namespace; a step's is for its attempts alone."""
    fields, user = {"config": OF_KEY["config"] | {"priority": 7}}, {"user": "ada"}
    urgent = step("a", priority=9)

    def asked(*args: Any, around: Surroundings | None = None, **more: Any) -> int:
        history = given(start(*args, input=user, **more), around=around)
        (ask,) = of(fx.Ask, effects(history))
        return int(ask.message.priority)

    assert asked(urgent, plan_fields=OF_KEY) == 5
    assert asked(urgent, plan_fields=fields) == 7
    assert asked(urgent, plan_fields=fields, config={"priority": 8}) == 8
    assert asked(urgent, plan_fields=OF_KEY, around=Surroundings(namespace=NamespaceConfig(priority=2))) == 2


def test_a_nudge_gives_back_again_what_is_not_needed_any_more() -> None:
    """Whoever should have said so may have died: also of an execution that has ended."""
    both = step("a", resources=[{"type": "gpu", "amount": 2}], concurrency={"key": "one"})
    history = given(start(both, input={"user": "ada"}, plan_fields=OF_KEY), granted("_", 0, by="concurrency"))
    history.happen(granted("a", by="concurrency", entity="_slots-1"))
    assert not of(fx.GiveBack, fx.open_effects(history.state))
    history.happen(granted("a", by="resources", entity="_pools"))
    history.happen(completed("a"))
    assert history.state.ended
    back = [(one.step, one.attempt) for one in of(fx.GiveBack, fx.open_effects(history.state))]
    assert back == [("a", "1-1"), ("a", "1-1"), ("_", "1-0")]


def test_an_execution_that_is_denied_its_slot_is_cancelled() -> None:
    """Skipped or replaced, it ends as cancelled, with the reason, without having run."""
    history = given(start("a", input={"user": "ada"}, plan_fields=OF_KEY), denied("_", 0, by="concurrency", code="skipped"))
    assert history.state.status == "cancelled"
    assert history.state.cancel_reason == "it is skipped"
    result = result_of(history.state)
    assert result.error is not None
    assert (result.error.code, result.error.message) == ("skipped", "it is skipped")
    with pytest.raises(ExecutionCancelled) as raised:
        result.unwrap()
    assert (raised.value.code, raised.value.context) == ("skipped", {"execution_id": "e1"})
    assert isinstance(outcome := outcome_of(history.state), Err)
    assert outcome.error.code == "skipped"


def test_a_further_run_has_nothing_of_the_cancel() -> None:
    """Run again after it was skipped, and cancelled by somebody then, it is cancelled without an error."""
    skipped = denied("_", 0, by="concurrency", code="skipped")
    history = given(
        start("a", input={"user": "ada"}, plan_fields=OF_KEY), skipped, retry(), granted("_", 0, run=2, by="concurrency")
    )
    assert result_of(history.state).error is None
    history.happen(cancel())
    history.happen(withdrawn("a", run=2))
    assert history.state.status == "cancelled"
    assert result_of(history.state).error is None


def test_a_key_that_refers_to_nothing_fails_the_attempt() -> None:
    """Nobody can be asked: the ask carries the reason, and its executor reports it."""
    (ask,) = of(fx.Ask, effects(given(start(step("a", concurrency={"key": "input.nobody"}), input={}))))
    assert ask.message.code == "reference_unresolved"


def test_what_is_not_limited_asks_nobody() -> None:
    """Without rate limit, key and resources nothing of this happens."""
    history = given(start("a"))
    assert not history.state.gated
    assert not of(fx.Ask, effects(history))
    assert history.state.steps[0].gate is None


def test_an_execution_whose_key_refers_to_nothing_is_refused() -> None:
    """It could never ask for its slot: so it is not created."""
    history = History()
    verdict = history.happen(start("a", input={}, plan_fields=OF_KEY)).verdict
    assert (verdict.kind, verdict.error.code) == ("invalid", "reference_unresolved")
    assert not history.commits


def test_an_undoing_that_is_told_twice_to_wait_says_so_once() -> None:
    """The same answer again adds no event, also for a step that keeps its status while it is undone."""
    limited = {"undo": TaskInfo(rate_limit=RateLimit(1, 1_000))}
    around = Surroundings(tasks=limited)
    history = given(start(step("a", compensate="undo"), "b"), completed("a"), fatal("b"), around=around)
    assert history.state.phase == "rolling_back"
    history.happen(waits("a", 2, until=7))
    assert [type(event) for event in history.events].count(e.TaskRateLimited) == 1
    assert not history.happen(waits("a", 2, until=7)).events


def test_an_ask_says_when_it_was_made_however_often() -> None:
    """Each by the time of what opened it: the attempt, or the grant before; a repetition says the same."""
    both = step("a", concurrency={"key": "one"}, rate_limit={"max_executions": 1, "window_ms": 1_000})
    history = given(start(both))
    (first,) = of(fx.Ask, effects(history))
    assert first.message.at == history.state.time
    history.happen(granted("a", by="concurrency"))
    (second,) = of(fx.Ask, effects(history))
    assert second.message.at == history.state.time
    asked_at = history.state.time
    history.happen(pause())
    history.happen(resume())
    assert [one.message.at for one in of(fx.Ask, effects(history))] == [asked_at]
