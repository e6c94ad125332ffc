"""`client.workers`: which workers are there now, which tasks they announced, and what waits for a task that none of them has.

Who is there is asked of the workers themselves, who answer at once; the rest stands in `_settings` and in the queues.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from esexec.client.strategies import namespace_of
from esexec.domain.messages import Dispatch, WorkerPresence
from esexec.domain.settings import TaskInfo
from esexec.nats.connection import Msg

if TYPE_CHECKING:
    from esexec.client.client import Client

_ANSWERS_S = 0.6
_LOOKED_AT = 1_000
"""So many waiting dispatches are looked at, the oldest first."""
_PLANS_LOOKED_AT = 200
"""So many kept plans that are ready, the newest."""
_read = msgspec.json.Decoder(WorkerPresence).decode
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

    async def present(self, *, wait: float = _ANSWERS_S) -> list[WorkerPresence]:
        """The workers that answer within `wait` seconds, by name."""
        heard: dict[str, WorkerPresence] = {}

        async def on_answer(message: Msg) -> None:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                answer = _read(message.data)
                heard[answer.worker] = answer

        connection, subjects = self._client._open_connection, self._client._subjects
        subscription = await connection.subscribe(subjects.who_is_here, on_answer)
        try:
            await connection.flush()
            connection.client.post(subjects.who_is_there, b"")
            await asyncio.sleep(wait)
        finally:
            await subscription.unsubscribe()
        return [heard[name] for name in sorted(heard)]

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
        waiting: dict[str, list[str]] = {}
        for dispatch in await self._waiting():
            if dispatch.task not in having and dispatch.purpose != "recovery":
                waiting.setdefault(dispatch.task, []).append(dispatch.execution_id)
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

    async def _waiting(self) -> list[Dispatch]:
        client = self._client
        stream, pattern = client._subjects.tasks_stream, client._subjects.tasks_all
        found = []
        for message in await client._reader.from_first(stream, pattern, _LOOKED_AT):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                found.append(_dispatch(message.data))
        return found
