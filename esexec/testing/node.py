"""The executor of a virtual engine: all desks of the engine's own, over the log in memory. It may die at any moment.

One that died does nothing any more: no commit, no effect, no acknowledgement. What it had in hand comes to the one that takes its
place, which knows nothing but the log.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from esexec.domain.commit import Commit
from esexec.domain.kept_alerts import ALERTS_ENTITY
from esexec.domain.kept_plans import PLANS_ENTITY
from esexec.domain.namespace import SETTINGS_ENTITY, NamespaceState, fold_namespace
from esexec.domain.sharing.requests import POOLS_ENTITY
from esexec.executor.alerts import AlertsDesk
from esexec.executor.desk import Desk
from esexec.executor.intake import Intake
from esexec.executor.params import Checks
from esexec.executor.plans import PlansDesk
from esexec.executor.presence import left_of
from esexec.executor.settings import SettingsDesk
from esexec.executor.shared import SharedDesk
from esexec.nats.connection import Connection
from esexec.nats.pull import Tap
from esexec.nats.subjects import Subjects
from esexec.testing.log import LogOfNode, SharedLog
from esexec.testing.outbox import Bury, MemoryOutbox
from esexec.testing.wire import Parcel, Wire
from esexec.testing.worker import VirtualWorker


class _Tap:
    """Takes as much as comes."""

    def release(self) -> bool:
        return False


class _WhileAlive:
    """An outbox that does nothing for an executor that is dead."""

    def __init__(self, node: "Node", outbox: MemoryOutbox) -> None:
        self._node, self._outbox = node, outbox

    def __getattr__(self, name: str) -> Callable[..., Awaitable[None]]:
        method = getattr(self._outbox, name)

        async def unless_dead(*arguments: Any) -> None:
            if self._node.alive:
                await method(*arguments)

        return unless_dead


class Node:
    """See the module. `killed_by`: whether it dies of a commit that was stored just now."""

    def __init__(
        self,
        name: str,
        log: SharedLog,
        wire: Wire,
        subjects: Subjects,
        worker: VirtualWorker,
        killed_by: Callable[[Commit], bool],
        bury: Bury,
    ) -> None:
        self.name, self.alive = name, True
        self._wire, self._worker, self._killed_by = wire, worker, killed_by
        own = LogOfNode(log, lambda: self.alive, self._stands)
        outbox: Any = _WhileAlive(self, MemoryOutbox(wire, subjects, worker, bury))
        self.plans, self.alerts = PlansDesk(name, own, outbox, log.objects), AlertsDesk(name, own, outbox)
        self.settings = SettingsDesk(name, own, outbox, self._follow)
        self.desk = Desk(
            name,
            own,
            outbox,
            start_waits=self._start_waits,
            look_around=self.settings.look_around,
            plan_of=self.plans.plan_of,
            first_command=self._first_command,
            objects=log.objects,
        )
        self.sharing = SharedDesk(name, own, outbox, wire.world.now)
        self._follow(fold_namespace(log.commits(SETTINGS_ENTITY)))
        shared = {SETTINGS_ENTITY: self.settings.take, PLANS_ENTITY: self.plans.take, ALERTS_ENTITY: self.alerts.take}
        take = self.sharing.take
        self._intake = Intake(cast(Connection, self), subjects, self.desk, {**shared, POOLS_ENTITY: take}, take)

    async def take(self, parcel: Parcel) -> None:
        """A kept message."""
        if self.alive:
            on = self._intake.on_command if parcel.key == "commands" else self._intake.on_inbox
            await on(cast(Any, parcel), cast(Tap, _Tap()))

    def die(self) -> None:
        """What it was about to begin begins, to no effect, and ends then."""
        self.alive = False
        self._wire.loop.call_soon(self._end)

    def _end(self) -> None:
        for task in [*self.desk._tasks, *self.sharing._tasks, *self.settings._tasks, *self.plans._tasks, *self.alerts._tasks]:
            task.cancel()

    def _stands(self, commit: Commit) -> bool:
        return self.alive and not self._killed_by(commit)

    def _follow(self, state: NamespaceState) -> None:
        checks = Checks(left_of(state.versions, self._worker.presence))
        around = state.surroundings._replace(all_known=not state.any_task, check=checks.problem if checks else None)
        self.desk.surroundings = around

    async def _first_command(self, entity: str, place: int) -> int | None:
        return self._wire.first_command(entity, place)

    async def _start_waits(self, entity: str) -> bool:
        return self._wire.start_waits(entity)

    # What it says of messages: nothing, once it is dead --------------------------------------------------------------------

    @property
    def client(self) -> "Node":
        return self

    def post(self, reply: str, word: bytes) -> None:
        if self.alive:
            self._wire.post(reply, word)
