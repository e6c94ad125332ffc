"""What holds of every history that the core can write, whatever comes in whatever order."""

import os
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esexec.domain import commands as c
from esexec.domain import effects as fx
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain import reports as r
from esexec.domain.advance import has_more
from esexec.domain.commit import Commit
from esexec.domain.evolve import fold
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.verify import verify
from tests.given import (
    EXECUTION,
    History,
    Message,
    cancel,
    completed,
    exactly,
    failed,
    fatal,
    lost,
    started,
    stopped,
    timed_out,
    withdrawn,
)
from tests.law import Handed, stuck
from tests.properties.strategies import EVENTS, starts, times

LONG = bool(os.environ.get("ESEXEC_LONG"))
many = settings(max_examples=5_000 if LONG else 250, deadline=None, suppress_health_check=[HealthCheck.too_slow])

orders = st.integers(0, 2**32).map(Random)
"""Who comes first, as one number: hypothesis would spend its time on the hundreds of choices of a single run."""

OUTCOMES = {
    "ok": completed,
    "fail": failed,
    "fatal": fatal,
    "late": timed_out,
    "lost": lambda step, attempt: lost(step, 10, attempt),
}


def outcome_of(seed: int, step: str, attempt: int) -> Message:
    """The one outcome that this attempt has in this world, whoever reports it and how often."""
    names = list(OUTCOMES)
    weight = (seed * 31 + sum(map(ord, step)) * 7 + attempt * 13) % 11
    name = names[weight] if weight < len(names) else "ok"
    return completed(step, f"{step}-{attempt}", attempt) if name == "ok" else OUTCOMES[name](step, attempt=attempt)


def is_lost(message: Message) -> bool:
    """Then it has to be known that it began: else it would be handed out anew."""
    return isinstance(message, tuple) and isinstance(message[0], r.Lost)


def choices(state: ExecutionState, seed: int) -> list[Message]:
    """What may come now: outcomes of open attempts, timers, the rest of a cut decision; and anything that came before, again."""
    open_attempts = [(state.graph.steps[index].id, one) for index, one in enumerate(state.steps) if one.open]
    now: list[Message] = [
        started(id, one.attempt) if is_lost(outcome := outcome_of(seed, id, one.attempt)) and one.started_at is None else outcome
        for id, one in open_attempts
    ]
    now += [r.Due(str(version)) for version in state.timers]
    if has_more(state):
        now.append(r.Continue(state.n))
    return now


NOISE: dict[str, Any] = {
    "started": started,
    "completed": completed,
    "fatal": fatal,
    "stopped": stopped,
    "withdrawn": withdrawn,
    "lost": lost,
}


def run(order: Random, command: c.StartExecution, seed: int, *, noise: bool, cancels: bool = False) -> History:
    """Carry an execution to its end, the next message being any that may come; `noise`: also what came before, once more."""
    history = History()
    history.happen(command)
    past: list[Message] = [command]
    for turn in range(400):
        state = history.state
        if state.ended:
            return history
        if cancels and turn == 3:
            history.happen(cancel())
            continue
        if noise and order.random() < 0.3:
            length = len(history.stored)
            history.happen(order.choice(past))
            assert len(history.stored) == length, "a message that was dealt with was dealt with again"
            continue
        message = order.choice(choices(state, seed))
        past.append(message)
        history.happen(message)
    raise AssertionError("it never ends")


def outcome(state: ExecutionState) -> dict[str, Any]:
    """What somebody who only looks at the end can see of what was done: not when, not in which order."""
    return {
        "status": state.status,
        "steps": [(one.status, one.attempt, one.output, one.error and one.error.code, one.skip_reason) for one in state.steps],
    }


@many
@given(orders, starts(), st.integers(0, 10))
def test_any_order_of_reports_leads_to_the_same_end(order: Random, command: c.StartExecution, seed: int) -> None:
    """With continue_on_error what runs does not depend on who was faster: every legal order, with duplicates, ends the same."""
    config = {"continue_on_error": True, "parallel_execution_limit": command.config.parallel_execution_limit}
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    command = c.StartExecution(**(fields | {"config": type(command.config)(**config)}))
    one = run(order, command, seed, noise=False)
    other = run(order, command, seed, noise=True)
    assert outcome(one.state) == outcome(other.state)


@many
@given(orders, starts(), st.integers(0, 10), st.booleans())
def test_every_history_ends_folds_and_verifies(order: Random, command: c.StartExecution, seed: int, cancels: bool) -> None:
    """No history is ever stuck; each ends, verifies, and folds to the state it was decided in (the harness compares them)."""
    history = run(order, command, seed, noise=True, cancels=cancels)
    found = verify(EXECUTION, history.stored)
    assert found.ok, found.problem
    assert history.state.ended
    assert not history.state.timers
    assert not history.state.in_flight
    assert history.state.unsettled == 0


@many
@given(orders, starts(), st.integers(0, 10))
def test_every_prefix_folds(order: Random, command: c.StartExecution, seed: int) -> None:
    """Each prefix is a history of its own: it folds, its effects are among those that are open, and repeating them is enough.

    But for a stop: what was never sent by then is not sent any more, and nobody can know that it was not.
    """
    history = run(order, command, seed, noise=False, cancels=seed % 3 == 0)
    in_time = Handed()
    for length in range(1, len(history.stored) + 1):
        state, handed, last = fold(EXECUTION, history.commits[:length]), Handed(), history.commits[length - 1]
        in_time.note(fx.effects_of(last.events, last.version, state, last.n))
        handed.sent |= in_time.sent
        still_open = exactly(plainly(effect) for effect in fx.open_effects(state))
        for commit in history.commits[:length]:
            due = fx.effects_of(commit.events, commit.version, state, commit.n)
            handed.note(due)
            assert all(effect in still_open for effect in exactly(plainly(one) for one in due if harms(one)))
        assert stuck(state, handed) is None


def plainly(effect: fx.Effect) -> fx.Effect:
    """A dispatch as it is the first time, when nobody can have it yet."""
    return effect._replace(again=False, in_hand=False) if isinstance(effect, fx.DispatchAttempt) else effect


def harms(effect: fx.Effect) -> bool:
    """Whether it must not be repeated once it is not open; clearing what is gone, or telling twice to stop, is nothing."""
    return not isinstance(effect, fx.ClearTimer) and not (isinstance(effect, fx.TakeBack) and effect.why == "over")


@many
@given(orders, starts(), st.integers(0, 10), st.integers(1, 6))
def test_small_decisions_lead_to_the_same_end(order: Random, command: c.StartExecution, seed: int, room: int) -> None:
    """Where decisions are cut says nothing about what is decided: the visible end is the same, whatever the room."""
    normal, limits_before = run(order, command, seed, noise=False), limits.events_per_commit
    limits.events_per_commit = room  # type: ignore[misc]
    try:
        cut = run(order, command, seed, noise=True)
    finally:
        limits.events_per_commit = limits_before  # type: ignore[misc]
    if command.config.continue_on_error:
        assert outcome(normal.state) == outcome(cut.state)
    assert verify(EXECUTION, cut.stored).ok


@many
@given(orders, starts(), st.integers(0, 10), st.data())
def test_nonsense_is_never_an_exception(order: Random, command: c.StartExecution, seed: int, more: st.DataObject) -> None:
    """Any report about any step and attempt, at any moment, gives legal events or a verdict."""
    history = History()
    history.happen(command)
    for _ in range(12):
        state = history.state
        step = more.draw(st.sampled_from([one.id for one in state.graph.steps] + ["nobody"]))
        kind = more.draw(st.sampled_from(list(NOISE)))
        report, _, _ = NOISE[kind](step)
        attempt = more.draw(st.sampled_from(["1-1", "1-2", "1-3", "2-1", "0-1", "1-0", "x"]))
        message: Message = more.draw(
            st.sampled_from(
                [(report, step, attempt), r.Due(str(more.draw(st.integers(0, 40)))), r.Continue(1), cancel("c7"), command]
            )
        )
        history.happen(message)
    assert verify(EXECUTION, history.stored).ok


@many
@given(st.data())
def test_every_event_survives_the_log(data: st.DataObject) -> None:
    """Encode, decode: the same commit; and the same bytes again."""
    events = tuple(data.draw(EVENTS[kind]) for kind in data.draw(st.lists(st.sampled_from(list(EVENTS)), min_size=1, max_size=4)))
    fields = data.draw(
        st.fixed_dictionaries(
            {"n": st.integers(1, 2**40), "version": st.integers(1, 2**40), "time": times, "prev": st.just("0f")}
        )
    )
    commit = Commit(v=1, execution_id="e1", events=events, **fields)
    encoded = codec.encode(commit)
    assert codec.decode(encoded) == commit
    assert codec.encode(codec.decode(encoded)) == encoded


def test_every_type_of_the_union_is_made_here() -> None:
    """No event type is left out of the round trip."""
    assert {str(kind.__struct_config__.tag) for kind in EVENTS} == set(e.TYPES)


@many
@given(st.binary(max_size=300))
def test_any_bytes_are_a_commit_or_a_corrupt_history(data: bytes) -> None:
    """Decoding what stands in the log raises `CorruptHistory` and nothing else."""
    from esexec.domain.errors import CorruptHistory

    try:
        codec.decode(data)
    except CorruptHistory:
        return
    raise AssertionError("random bytes are no commit")
