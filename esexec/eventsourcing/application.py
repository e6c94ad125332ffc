"""`Executions`: the log as an application of the `eventsourcing` library, and the factory that makes what it consists of."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, ClassVar, cast

from eventsourcing.application import AggregateNotFoundError, Application, ProjectorFunction, Repository
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    AggregateRecorder,
    EventStore,
    InfrastructureFactory,
    InfrastructureFactoryError,
    IntegrityError,
    Mapper,
    NotSupportedError,
    PersistenceError,
    ProcessRecorder,
    TrackingRecorder,
    Transcoder,
)
from eventsourcing.utils import Environment, EnvType

from esexec.domain import limits
from esexec.domain.ids import is_user_id
from esexec.domain.state import ExecutionState
from esexec.eventsourcing.bridge import Bridge
from esexec.eventsourcing.events import LogMapper, project
from esexec.eventsourcing.recorder import LogRecorder
from esexec.eventsourcing.snapshots import FORM, Snapshot
from esexec.eventsourcing.stored import StreamRecorder
from esexec.nats.connection import Auth

_FOR_VIEWS = "keep views in a database: COUNTS_PERSISTENCE_MODULE=eventsourcing.sqlite, for a projection called Counts"


class LogFactory(InfrastructureFactory[TrackingRecorder]):
    """What `PERSISTENCE_MODULE=esexec.eventsourcing` makes. One connection for all, closed with it.

    `NATS_URL` (else nats://127.0.0.1:4222), `ESEXEC_NAMESPACE` (else default), `NATS_CREDS` and `NATS_NKEY` (files) say where;
    with an application's name and `_` in front for that application alone.
    """

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._bridge: Bridge | None = None

    @property
    def bridge(self) -> Bridge:
        """The connection; made when it is first needed. Raises `OperationalError`."""
        if self._bridge is None:
            auth: Auth = {}
            if file := self.env.get("NATS_CREDS"):
                auth["credentials"] = file
            if file := self.env.get("NATS_NKEY"):
                auth["nkeys_seed"] = file
            url = self.env.get("NATS_URL") or "nats://127.0.0.1:4222"
            self._bridge = Bridge(url, self.env.get("ESEXEC_NAMESPACE") or "default", **auth)
        return self._bridge

    def mapper(self, transcoder: Transcoder | None = None, mapper_class: type[Mapper[Any]] | None = None) -> Mapper[Any]:
        """Always the log's own, unless another class is given."""
        return super().mapper(transcoder, mapper_class or LogMapper)

    def application_recorder(self) -> LogRecorder:
        return LogRecorder(self.bridge)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Not of the log: a stream of its own. Snapshots of another version of esexec are in another, and not seen."""
        if purpose == "snapshots":
            return StreamRecorder(self.bridge, f"{purpose}_{FORM}", limits.snapshots_bytes)
        return StreamRecorder(self.bridge, purpose)

    def tracking_recorder(self, tracking_recorder_class: type[TrackingRecorder] | None = None) -> TrackingRecorder:
        """Raises `InfrastructureFactoryError`: a view needs transactions, which the log has none of."""
        raise InfrastructureFactoryError(_FOR_VIEWS)

    def process_recorder(self) -> ProcessRecorder:
        """Raises `InfrastructureFactoryError`, as `tracking_recorder`."""
        raise InfrastructureFactoryError(_FOR_VIEWS)

    def close(self) -> None:
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()


class ExecutionRepository(Repository[str]):
    """`get(id)` is the folded state of an execution, `get(id, version=7)` as it was then.

    Nothing is cached: a state is changed by whoever folds on, so each is its caller's own. What long histories need are
    snapshots: with these, one is taken when more than `snapshot_every` events had to be folded.
    """

    def __init__(
        self, event_store: EventStore[str], snapshot_store: EventStore[str] | None = None, snapshot_every: int = 1000
    ) -> None:
        super().__init__(event_store, snapshot_store=snapshot_store)
        self._snapshot_every = snapshot_every

    def get(  # type: ignore[override]
        self,
        aggregate_id: str,
        *,
        version: int | None = None,
        projector_func: ProjectorFunction[Any, Any] = project,
        fastforward_skipping: bool = False,
        deepcopy_from_cache: bool = True,
    ) -> ExecutionState:
        """Raises the library's `AggregateNotFoundError`, also for what is not the id of an execution."""
        if not is_user_id(str(aggregate_id)):
            raise AggregateNotFoundError(f"{str(aggregate_id)[:80]!r} is not the id of an execution")
        folded = 0

        def counted(events: Iterable[Any]) -> Iterator[Any]:
            nonlocal folded
            for event in events:
                folded += not isinstance(event, Snapshot)
                yield event

        found: Any = super().get(
            str(aggregate_id), version=version, projector_func=lambda state, events: projector_func(state, counted(events))
        )
        may_be_written = isinstance(found, ExecutionState) and not found.has_objects
        if self.snapshot_store is not None and folded > self._snapshot_every and may_be_written:
            with suppress(PersistenceError):  # it is there already, or may not be written: then it is folded again
                self.snapshot_store.put([cast(DomainEventProtocol[str], Snapshot.take(found))])
        return cast(ExecutionState, found)


class Executions(Application[str]):
    """All executions of a namespace: `repository`, `notification_log`, and the `recorder` to subscribe to.

    To be read: `save` raises, for executions are changed by commands. Use as `with Executions() as executions:`, or `close` it.
    Where to connect is said in the environment, see `LogFactory`. Subclass it for other settings, such as
    `is_snapshotting_enabled = True`.
    """

    name = "Executions"
    log_section_size = 100
    snapshot_class: Any = Snapshot
    snapshot_every: ClassVar[int] = 1000
    """Up to so many events are folded each time; beyond, and if snapshots are enabled, the state is written down."""

    def construct_factory(self, env: Environment) -> LogFactory:
        return LogFactory(env)

    def construct_repository(self) -> ExecutionRepository:
        return ExecutionRepository(self.events, self.snapshots, self.snapshot_every)

    @property
    def repository(self) -> ExecutionRepository:
        return cast(ExecutionRepository, self._repository)

    def save(self, *_: Any, **__: Any) -> Any:
        """Raises `NotSupportedError`: see the class."""
        raise NotSupportedError("executions are changed by commands, not by events from outside")

    def take_snapshot(
        self, aggregate_id: str, version: int | None = None, projector_func: ProjectorFunction[Any, Any] = project
    ) -> None:
        """Write down the state of an execution, now or as of a version. One that is there already is left; of one with values in
        objects none is written."""
        with suppress(IntegrityError):
            super().take_snapshot(aggregate_id, version, projector_func)
