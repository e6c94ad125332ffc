"""What a test has a step or a task do instead of what it does: faults, which hit attempts of a step, and stubs of tasks."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from esexec.domain.errors import ExecutionError
from esexec.domain.messages import Dispatch
from esexec.tasks import Task, current_context

HANGS_S = 10 * 365 * 86_400.0
"""So long a handler takes that never ends."""

Failure = BaseException | type[BaseException] | str


class Fault:
    """What hits the attempts of a step. `hits`: how many it has hit so far. `lost`: the handler runs, and then its worker is lost
    before it can say so."""

    def __init__(
        self,
        step: str,
        failure: Failure,
        *,
        times: int | None,
        until_s: float | None = None,
        after_s: float = 0.0,
        retry: bool | None = None,
        undoing: bool = False,
        hangs: bool = False,
        lost: bool = False,
    ) -> None:
        self.step, self.hits, self.lost = step, 0, lost
        self._failure, self._retry, self._hangs = failure, retry, hangs
        self._times, self._until_s, self._after_s, self._undoing = times, until_s, after_s, undoing

    def strikes(self, dispatch: Dispatch, now_s: float) -> bool:
        """Whether it hits this attempt."""
        return (
            dispatch.step == self.step
            and dispatch.purpose == ("compensation" if self._undoing else "task")
            and (self._times is None or self.hits < self._times)
            and (self._until_s is None or now_s < self._until_s)
        )

    def instead_of(self, name: str) -> Task[..., Any]:
        """What the attempt runs."""

        async def fault(**params: Any) -> Any:
            await asyncio.sleep(HANGS_S if self._hangs else self._after_s)
            raise _error_of(self._failure, self._retry)

        return Task(fault, name=name)

    def __repr__(self) -> str:
        what = "undoing " if self._undoing else ""
        return f"the fault of {what}step `{self.step}`"


class _StandIn(Task[..., Any]):
    """A task that is announced as another one."""

    def __init__(self, call: Callable[..., Any], known: Task[..., Any]) -> None:
        super().__init__(
            call,
            name=known.name,
            settings=known.settings,
            description=known.description,
            compensate=known.compensation,
            concurrency=known.concurrency,
            resources=known.resources,
        )
        self._known = known

    @property
    def schema(self) -> dict[str, Any] | None:
        return self._known.schema


class Stub:
    """Stands in for a task. `calls`: the params of each of its calls, in order."""

    def __init__(
        self, name: str, returns: Any, raises: Failure | None, takes_s: float, instead_of: Task[..., Any] | None
    ) -> None:
        self.name = name
        self.calls: list[dict[str, Any]] = []
        self._returns, self._raises, self._takes_s, self._instead_of = returns, raises, takes_s, instead_of

    @property
    def task(self) -> Task[..., Any]:
        """What the worker has: with the settings of the task that it stands in for."""
        known = self._instead_of
        if known is None:
            return Task(self._call, name=self.name, description=f"a stub of {self.name}")
        return _StandIn(self._call, known)

    async def _call(self, **params: Any) -> Any:
        self.calls.append(params)
        if self._instead_of is not None:  # what the real one would refuse, it refuses too
            context = current_context()
            loose = context is not None and context.purpose == "compensation"
            self._instead_of.bind(params, context, loose=loose)
        if self._takes_s:
            await asyncio.sleep(self._takes_s)
        if self._raises is not None:
            raise _error_of(self._raises, None)
        if not callable(self._returns):
            return self._returns
        found = self._returns(**params)
        return await found if inspect.isawaitable(found) else found

    def __repr__(self) -> str:
        return f"Stub({self.name!r}, {len(self.calls)} calls)"


def _error_of(failure: Failure, retry: bool | None) -> BaseException:
    """A text is the code of an error."""
    if isinstance(failure, str):
        return ExecutionError("a test wanted it so", code=failure, retry=retry)
    return failure() if isinstance(failure, type) else failure
