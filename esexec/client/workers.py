"""`client.workers`: which workers are there now, which tasks they announced, and what waits for a task that none of them has.

Who is there is asked of the workers themselves, who answer at once; the rest stands in `_settings` and in the queues.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from esexec.client.strategies import namespace_of
from esexec.domain.messages import Dispatch, WorkerPresence
from esexec.domain.settings import TaskInfo
from esexec.nats.direct import DirectReader
from esexec.nats.presence import ANSWERS_S, workers_there
from esexec.nats.subjects import Subjects

if TYPE_CHECKING:
    from esexec.client.client import Client

_LOOKED_AT = 1_000
"""So many waiting dispatches are looked at, the oldest first."""
_PLANS_LOOKED_AT = 200
"""So many kept plans that are ready, the newest."""
_dispatch = msgspec.json.Decoder(Dispatch).decode


class AnnouncedVersion(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What a task takes, as some workers announced it: `schema` a JSON Schema (None: anything). `workers`: who has it now."""

    id: str = ""
    schema: dict[str, Any] | None = None
    workers: tuple[str, ...] = ()


class AnnouncedTask(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """A task that was announced. `info`: its settings and what undoes it, as they were announced last; `versions`: what it takes,
    the last announced last. `workers`: who has it now, and `queues` what they take from."""

    name: str
    info: TaskInfo
    versions: tuple[AnnouncedVersion, ...] = ()
    workers: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The first words on it, of the version announced last."""
        schema = self.versions[-1].schema if self.versions else None
        found = (schema or {}).get("description", "")
        return found if isinstance(found, str) else ""


class MissingTask(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """A task that something needs and no worker has now. `waiting`: so many attempts wait for it in the queues (of those
    looked at), `executions`: some of which they are; `plans`: ids of kept plans that call it."""

    task: str
    waiting: int = 0
    executions: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()


class Workers:
    """`client.workers`: see the module."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def present(self, *, wait: float = ANSWERS_S) -> list[WorkerPresence]:
        """The workers that answer within `wait` seconds, by name; 1,000 at most. Raises `Unavailable` when disconnected."""
        return await workers_there(self._client._open_connection, self._client._subjects, wait)

    async def tasks(self) -> list[AnnouncedTask]:
        """All tasks that were ever announced, by name, and who has them now."""
        state, there = await namespace_of(self._client), await self.present()
        found = []
        for name, info in sorted(state.tasks.items()):
            having = [one for one in there if name in one.tasks]
            versions = [
                AnnouncedVersion(id=one.id, schema=one.schema, workers=tuple(w.worker for w in having if w.tasks[name] == one.id))
                for one in state.versions.get(name, ())
            ]
            queues = sorted({queue for one in having for queue in one.queues})
            workers = tuple(one.worker for one in having)
            found.append(AnnouncedTask(name=name, info=info, versions=tuple(versions), workers=workers, queues=tuple(queues)))
        return found

    async def missing(self) -> list[MissingTask]:
        """The tasks that waiting attempts or kept plans need and that no worker has now, by name."""
        there = await self.present()
        if any(one.any_task for one in there):
            return []
        having = {task for one in there for task in one.tasks}
        waiting = await waiting_without(self._client._reader, self._client._subjects, there)
        plans: dict[str, list[str]] = {}
        for listed in (await self._client.plans.list("ready"))[-_PLANS_LOOKED_AT:]:
            plan = (await self._client.plans.get(listed.plan_id)).plan
            steps = plan.spec.steps if plan is not None else ()
            called = {task for one in steps for task in (one.task, one.fallback, one.compensate) if task is not None}
            for task in called - having:
                plans.setdefault(task, []).append(listed.plan_id)
        return [
            MissingTask(
                task=task,
                waiting=len(waiting.get(task, ())),
                executions=tuple(dict.fromkeys(waiting.get(task, ())))[:20],
                plans=tuple(plans.get(task, ())),
            )
            for task in sorted({*waiting, *plans})
        ]


async def waiting_without(reader: DirectReader, subjects: Subjects, there: Iterable[WorkerPresence]) -> dict[str, list[str]]:
    """The tasks that waiting attempts need and none of these workers has: the execution of each attempt, of those looked at."""
    workers = list(there)
    found: dict[str, list[str]] = {}
    for message in await reader.from_first(subjects.tasks_stream, subjects.tasks_all, _LOOKED_AT):
        dispatch = dispatch_in(message.data)
        if dispatch is not None and dispatch.purpose != "recovery" and not is_known(dispatch.task, workers):
            found.setdefault(dispatch.task, []).append(dispatch.execution_id)
    return found


def is_known(task: str, workers: Iterable[WorkerPresence]) -> bool:
    """Whether one of these has the task, or takes any."""
    return any(one.any_task or task in one.tasks for one in workers)


def dispatch_in(data: bytes) -> Dispatch | None:
    """None: it cannot be read."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _dispatch(data)
    return None
