"""`verify`: whether a history is whole and was decided by the rules, and if not, where it breaks.

Finds edited, dropped, inserted and forged commits: numbers and versions are gapless, each commit carries the hash of the
stored bytes before it, and every event is one that could follow. A lost tail is not seen here: nothing in the log points
forward. (Projections remember the last number and hash of each execution as witnesses.)
"""

from collections.abc import Sequence

import msgspec

from esexec.domain.commit import Commit, hash_of
from esexec.domain.errors import EsexecError
from esexec.domain.events import Compacted
from esexec.domain.evolve import begin, evolve, note_cause
from esexec.domain.legality import objection
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.port import Stored


class Verification(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The finding for one entity. `problem` says what is wrong, `commit` where (the first that does not fit)."""

    execution_id: str
    ok: bool
    commits: int = 0
    events: int = 0
    head: str = ""
    commit: int | None = None
    problem: str | None = None


def verify(entity: str, history: Sequence[Stored]) -> Verification:
    """Check a history as it was read, in the order of positions, gaps and all."""
    state = ExecutionState(entity)
    first, previous, events = _beginning(history)
    last_position = 0
    for expected, stored in enumerate(history, first):
        problem = _numbers(expected, stored, last_position)
        if problem is None:
            try:
                commit = codec.commit_of(stored)
                problem = _chained(entity, commit, expected, previous, events + 1)
                problem = problem or _lawful(state, commit)
            except EsexecError as error:
                problem = error.message
        if problem is not None:
            return Verification(
                execution_id=entity, ok=False, commits=expected - 1, events=events, commit=stored.n, problem=problem
            )
        previous, last_position = hash_of(stored.data), stored.position
        events += len(commit.events)
    return Verification(execution_id=entity, ok=True, commits=first + len(history) - 1, events=events, head=previous)


def _beginning(history: Sequence[Stored]) -> tuple[int, str, int]:
    """The number of the first commit, the hash before it, and the events until then: where a shared entity was compacted.

    What was before is gone, so that the first commit's own word stands for it.
    """
    try:
        commit = codec.decode(history[0].data) if history and history[0].n > 1 else None
    except EsexecError:
        return 1, "", 0
    if commit is None or not commit.execution_id.startswith("_") or not isinstance(commit.events[0], Compacted):
        return 1, "", 0
    return history[0].n, commit.prev, commit.version - 1


def _numbers(expected: int, stored: Stored, last_position: int) -> str | None:
    if stored.n != expected:
        return f"commit {expected} is missing" if stored.n > expected else f"commit {stored.n} stands after {expected - 1}"
    return "it was stored before its predecessor" if stored.position <= last_position else None


def _chained(entity: str, commit: Commit, n: int, previous: str, version: int) -> str | None:
    if commit.execution_id != entity:
        return f"it belongs to {commit.execution_id}"
    if commit.n != n:
        return f"it calls itself commit {commit.n}"
    if commit.version != version:
        return f"its first event is version {commit.version}, not {version}"
    if commit.prev != previous:
        return (
            "the hash of the commit before does not match: that one was edited or replaced, or this one was not decided upon it"
        )
    return None if commit.events else "it holds no event"


def _lawful(state: ExecutionState, commit: Commit) -> str | None:
    """Whether each event could follow. What executions share has no such rules beyond the chain."""
    if commit.execution_id.startswith("_"):
        return None
    if state.time is not None and commit.time < state.time:
        return "it is older than its predecessor"
    begin(state, commit.n, commit.time)
    for event in commit.events:
        if (problem := objection(state, event)) is not None:
            return problem
        evolve(state, event)
    for cause in commit.commands:
        note_cause(state, cause.id, cause.time)
    return None
