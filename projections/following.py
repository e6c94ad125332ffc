"""Executions as a projection follows them: their states, folded commit by commit by the domain itself.

So what a list says is what the detail says. Of those that it does not remember the history is read from the log, before the
page and outside of its transaction.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from esexec.domain import events as e
from esexec.domain.commit import Commit
from esexec.domain.errors import CorruptHistory
from esexec.domain.evolve import fold
from esexec.domain.state import ExecutionState
from esexec.log import codec
from esexec.log.port import Log
from projections.source import Recorded

logger = logging.getLogger("esexec.projections")

_KEPT = 5_000
"""So many executions that go on are remembered."""
_READ_AT_ONCE = 50

_CONCERNS_ALL = {
    e.ExecutionCreated,
    e.ExecutionForked,
    e.ExecutionRetried,
    e.ExecutionFailed,
    e.ExecutionCancelled,
    e.CheckpointRestored,
    e.RollbackStarted,
    e.ExecutionRolledBack,
}
"""Events upon which any step may be another than before. Of all others those that are named."""


class Followed:
    """The executions of a page. `changed`: by execution, the steps that are not as they were; None = perhaps any.

    Whoever needs to know what was before, or what happened, overrides `read`, `will_change` and `left`.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._states: OrderedDict[str, ExecutionState] = OrderedDict()
        self._broken: set[str] = set()
        self._ended: set[str] = set()
        self._most = kept
        self.changed: dict[str, set[int] | None] = {}

    async def prepare(self, commits: Sequence[Recorded], log: Log) -> None:
        """Read what is missing. Raises `Unavailable`."""
        first: dict[str, int] = {}
        for one in commits:
            if one.entity[0] != "_":
                first.setdefault(one.entity, one.n)
        missing = [(entity, n) for entity, n in first.items() if n > 1 and not self._stands(entity, n - 1)]
        for begin in range(0, len(missing), _READ_AT_ONCE):
            await asyncio.gather(*(self._read(entity, n - 1, log) for entity, n in missing[begin : begin + _READ_AT_ONCE]))

    def _stands(self, entity: str, n: int) -> bool:
        state = self._states.get(entity)
        return (state is not None and state.n == n) or entity in self._broken

    async def _read(self, entity: str, n: int, log: Log) -> None:
        try:
            stored = (await log.load(entity))[:n]
            commits = [codec.commit_of(one) for one in stored]
            state = fold(entity, commits)
            if state.n != n:
                raise CorruptHistory(f"{entity}: commit {state.n + 1} is missing")
            state.position = stored[-1].position
            self._states[entity] = state
            self.read(entity, commits)
        except CorruptHistory as error:
            self._leave(entity, error)

    def _leave(self, entity: str, error: CorruptHistory) -> None:
        """An execution whose history is broken stays what it was; all others go on."""
        if entity not in self._broken:
            logger.error("%s is followed no more: %s", entity, error)
            self._broken.add(entity)
        self._states.pop(entity, None)
        self.left(entity)

    def advance(self, recorded: Recorded) -> ExecutionState | None:
        """The state after this commit; None: it is not an execution's, or that one's history is broken."""
        entity = recorded.entity
        if entity[0] == "_" or entity in self._broken:
            return None
        state = self._states.get(entity) or ExecutionState(entity)
        if recorded.n <= state.n:
            return None
        steps = _concerned(state, recorded.commit)
        if state.exists:
            self.will_change(state, steps)
        try:
            fold(entity, (recorded.commit,), state)
        except CorruptHistory as error:
            self._leave(entity, error)
            self.changed.pop(entity, None)
            return None
        state.position = recorded.position
        self._states[entity] = state
        self._states.move_to_end(entity)
        (self._ended.add if state.ended else self._ended.discard)(entity)
        if steps is None:
            self.changed[entity] = None
        elif (changed := self.changed.setdefault(entity, set())) is not None:
            changed.update(steps)
        return state

    def read(self, entity: str, commits: Sequence[Commit]) -> None:
        """The state of this execution is remembered from now on: what happened before the page."""

    def will_change(self, state: ExecutionState, steps: Iterable[int] | None) -> None:
        """The next commit changes a state that there is, and of its steps these; None: perhaps any."""

    def left(self, entity: str) -> None:
        """This execution is remembered no more."""

    def taken(self) -> list[tuple[ExecutionState, list[int]]]:
        """The executions that have changed since it was asked last, with the steps that are not as they were."""
        changed, self.changed = self.changed, {}
        out = []
        for entity, steps in changed.items():
            state = self._states[entity]
            out.append((state, sorted(steps) if steps is not None else list(range(len(state.steps)))))
        return out

    def let_go(self) -> None:
        """After a page: those that have ended will hardly be heard of again, and of the others the oldest are forgotten."""
        for entity in self._ended:
            self._states.pop(entity, None)
            self.left(entity)
        self._ended.clear()
        while len(self._states) > self._most:
            self.left(self._states.popitem(last=False)[0])

    def forget(self) -> None:
        """Whatever is remembered may be ahead of the view."""
        self._states.clear()
        self._ended.clear()
        self._broken.clear()
        self.changed.clear()


def _concerned(state: ExecutionState, commit: Commit) -> set[int] | None:
    """The steps that a commit may change, of the state before it; None: perhaps any."""
    if not state.exists:
        return None
    steps, index = set(), state.graph.index
    for event in commit.events:
        if type(event) in _CONCERNS_ALL:
            return None
        if (step := getattr(event, "step", None)) is not None and step in index:
            steps.add(index[step])
    return steps
