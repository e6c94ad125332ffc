"""The two lives, of an execution and of a step: every line of the tables can happen, and nothing else does."""

from collections.abc import Iterator
from functools import cache

import pytest

from esexec.domain import events as e
from esexec.domain import reports as r
from esexec.domain.evolve import begin, evolve
from esexec.domain.legality import objection
from esexec.domain.life import EXECUTION, STEP
from esexec.domain.state import SETTLED, TERMINAL, ExecutionState
from tests.given import (
    History,
    at,
    before,
    cancel,
    completed,
    due,
    failed,
    failure,
    fatal,
    given,
    granted,
    pause,
    resume,
    retry,
    start,
    started,
    step,
    timed_out,
    waits,
    withdrawn,
)
from tests.histories.kinds import KINDS
from tests.histories.make import history_of
from tests.law import lives_of
from tests.unit.test_commands_in_states import AROUND, COMMANDS, STATES, asked, brought

Move = tuple[type[e.Event], str, str]


def told() -> Iterator[History]:
    """Histories that together lead through every line of both tables."""
    for kind in KINDS:
        yield history_of(kind)
    for state in STATES:
        for command in COMMANDS:
            history = brought(state)
            history.happen(asked(history, command))
            yield history
    limited = step("a", rate_limit={"max_executions": 1, "window_ms": 1_000})
    yield given(start(limited), waits("a", until=5), waits("a", until=9), cancel())
    yield given(start(limited), granted("a"))
    of_key = {"config": {"concurrency": {"key": "one"}}}
    yield given(start("a", plan_fields=of_key), pause(), granted("_", 0, by="concurrency"), resume())
    once_more = (granted("_", 0, by="concurrency"), fatal("a"), retry(), granted("_", 0, run=2, by="concurrency"))
    yield given(start("a", plan_fields=of_key), *once_more)
    yield given(start("a", delay_ms=5_000), pause(), cancel())
    yield given(start("a", config={"execution_timeout_ms": 5_000}), pause(), due(kind="deadline"))
    yield given(start("a", delay_ms=5_000, deadline=at(3)), due(kind="deadline"))
    yield given(start("a"), pause(), completed("a"))
    yield given(start("a"), pause(), fatal("a"))
    yield given(start("a"), failed("a"), cancel())
    yield given(start(step("a", queue_timeout_ms=5_000, max_retries=0)), due("a", "queue"), withdrawn("a"))
    yield given(start("a"), before("a", 1))
    yield given(start("a"), started("a"), before("a", 1))
    yield given(start("a", config={"max_retries": 0}), timed_out("a"))
    yield given(start("a"), (r.Failed(error=failure()), "a", "1-1"))
    yield given(start("a"), (r.Failed(error=failure(retryable=False)), "a", "1-1"))
    yield given(start("a", "b"), completed("a"), pause(), fatal("b"), around=AROUND)
    paused = brought("rolling back, paused")
    paused.happen(completed("b", None, 2))
    yield paused
    last = brought("rolling back")
    for message in (completed("b", None, 2), pause("p"), completed("a", None, 2)):
        last.happen(message)
    yield last


@cache
def moves() -> tuple[set[Move], set[Move]]:
    """What became of which status by which event, in all these histories: of executions, and of steps."""
    executions: set[Move] = set()
    steps: set[Move] = set()
    for history in told():
        state = ExecutionState(history.execution)
        for commit in history.commits:
            begin(state, commit.n, commit.time)
            for event in commit.events:
                was = lives_of(state, event)
                evolve(state, event)
                now = lives_of(state, event)
                executions.add((type(event), was[0], now[0]))
                if was[1] is not None and now[1] is not None:
                    steps.add((type(event), was[1], now[1]))
    return executions, steps


def lines(table: object) -> set[Move]:
    assert isinstance(table, dict)
    return {(kind, was, now) for kind, row in table.items() for was, outcomes in row.items() for now in outcomes}


def test_every_line_of_the_tables_happens() -> None:
    """What the drawings of the documentation show is what executions and steps do; no arrow is there for nothing."""
    assert lines(EXECUTION) - moves()[0] == set()
    assert lines(STEP) - moves()[1] == set()


def test_every_status_that_an_event_changes_stands_in_the_tables() -> None:
    """No status changes by an event that the tables do not know. A new run makes steps new, which is said below the table."""
    changes = {move for move in moves()[0] if move[1] != move[2]}
    assert changes <= lines(EXECUTION)
    assert {move for move in moves()[1] if move[1] != move[2] and move[0] is not e.ExecutionRetried} <= lines(STEP)


def test_what_has_ended_stays_ended_but_for_three_commands() -> None:
    """Retry, restore and rollback go on with an execution that has ended; a settled step is begun again by a new run only."""
    assert {kind for kind, row in EXECUTION.items() if TERMINAL & set(row)} == {
        e.ExecutionRetried,
        e.CheckpointRestored,
        e.RollbackStarted,
    }
    assert not any(SETTLED & set(row) for row in STEP.values())


@pytest.mark.parametrize("state", [state for state in STATES if state != "absent"])
def test_an_event_that_is_not_in_the_row_of_a_status_is_unlawful(state: str) -> None:
    """`verify` finds it, whatever else may speak for it."""
    reached = brought(state).state
    checkpoint = next(iter(reached.checkpoints))
    error = failure()
    for event in (
        e.ExecutionStarted(),
        e.ExecutionPaused(),
        e.ExecutionResumed(),
        e.ExecutionCancelRequested(grace_ms=1),
        e.DeadlineExceeded(error=error, grace_ms=1),
        e.ExecutionCompleted(),
        e.ExecutionFailed(error=error),
        e.ExecutionCancelled(),
        e.RollbackStarted(),
        e.ExecutionRolledBack(undone=1),
        e.ExecutionRetried(run=2),
        e.CheckpointRestored(checkpoint_id=checkpoint, run=2),
    ):
        if reached.status not in EXECUTION[type(event)]:
            assert objection(reached, event) is not None, f"{e.type_of(event)} while {state}"
