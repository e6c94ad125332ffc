"""The log as the `eventsourcing` library sees it, on a real server: its own suite, its own recorder beside ours, and what neither
covers: rivals, batches, outages, ends."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import (
    AggregateRecorder,
    DataError,
    InfrastructureFactory,
    InfrastructureFactoryError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.popo import POPOApplicationRecorder, POPOTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.tests import persistence as suite

from esexec.domain.errors import Unavailable
from esexec.domain.evolve import fold
from esexec.eventsourcing import EVENTS_PER_COMMIT, Executions, LogFactory, LogMapper, LogRecorder, Recorded, StreamRecorder
from esexec.eventsourcing import stored as stored_module
from esexec.eventsourcing.bridge import Bridge
from esexec.log import codec
from esexec.log.port import append_and_wait
from esexec.nats.streams import delete_streams
from tests.given import visible
from tests.server import NatsServer

HISTORIES = {
    file.stem: file.read_bytes().splitlines() for file in sorted((Path(__file__).parents[1] / "histories").glob("*.jsonl"))
}


@pytest.fixture
def space(nats_server: NatsServer) -> Iterator[dict[str, str]]:
    """The environment of an application on a fresh namespace, which is deleted afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield {"NATS_URL": nats_server.url, "ESEXEC_NAMESPACE": name}
    bridge = Bridge(nats_server.url, name)
    bridge.call(delete_streams(bridge.connection, bridge.subjects))
    bridge.close()


@pytest.fixture
def bridge(space: dict[str, str]) -> Iterator[Bridge]:
    bridge = Bridge(space["NATS_URL"], space["ESEXEC_NAMESPACE"])
    yield bridge
    bridge.close()


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    """Whatever was opened in a test is closed with it: no thread goes on."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in set(threading.enumerate()) - before if thread.is_alive() and not thread.daemon]
    left += [thread for thread in threading.enumerate() if thread.name == "esexec-eventsourcing"]
    assert left == []


def within(seconds: float, condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`, which another thread brings about."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if found := condition():
            return found
        pause.wait(0.02)
    pytest.fail(f"this did not come true within {seconds} s")


def append(bridge: Bridge, execution_id: str, commits: Sequence[bytes], position: int = 0, n: int = 0) -> int:
    """Store these behind commit `n`; the position of the last."""
    for number, data in enumerate(commits, n + 1):
        stored = bridge.call(append_and_wait(bridge.log, execution_id, number, data, position))
        assert stored is not None
        position = stored
    return position


def renamed(commits: Sequence[bytes], execution_id: str) -> list[bytes]:
    """A golden history as another execution's. (Its hashes are no longer right, which nobody here looks at.)"""
    return [data.replace(b'"execution_id":"e1"', b'"execution_id":"%b"' % execution_id.encode()) for data in commits]


def filled(bridge: Bridge) -> list[str]:
    """All golden histories in the log, mingled; their ids."""
    histories = {name: renamed(commits, name) for name, commits in HISTORIES.items()}
    positions = dict.fromkeys(histories, 0)
    for n in range(max(map(len, histories.values()))):
        for name, commits in histories.items():
            if n < len(commits):
                positions[name] = append(bridge, name, [commits[n]], positions[name], n)
    return list(histories)


def event(originator: str, version: int, state: bytes = b"s") -> StoredEvent:
    return StoredEvent(originator, version, "topic", state)


# The library's own suite -------------------------------------------------------------------------------------------------


class TestStreamRecorder(suite.AggregateRecorderTestCase):
    """Every case of the library for recorders of aggregates."""

    @pytest.fixture(autouse=True)
    def _on(self, bridge: Bridge) -> None:
        self.bridge = bridge

    def create_recorder(self) -> AggregateRecorder:
        return StreamRecorder(self.bridge)


# The log, beside the library's own recorder ----------------------------------------------------------------------------------


@pytest.fixture
def both(bridge: Bridge) -> tuple[LogRecorder, POPOApplicationRecorder, list[int]]:
    """Our recorder on a log full of histories; the library's with the same events; and our ids of its notifications 1, 2, 3, …"""
    filled(bridge)
    ours, theirs = LogRecorder(bridge), POPOApplicationRecorder()
    all_of_ours = ours.select_notifications(None, 10_000)
    for one in all_of_ours:
        theirs.insert_events([StoredEvent(one.originator_id, one.originator_version, one.topic, one.state)])
    return ours, theirs, [one.id for one in all_of_ours]


def test_events_are_selected_as_the_library_does(both: tuple[LogRecorder, POPOApplicationRecorder, list[int]]) -> None:
    """For every execution and every window the events are those of the library's recorder, in its order."""
    ours, theirs, _ = both
    for execution_id in [*HISTORIES, "nobody", "not.an.id", "*", ">"]:
        for gt in (None, 0, 2, 5):
            for lte in (None, 1, 3, 99):
                for desc, limit in ((False, None), (True, None), (True, 1), (False, 3), (True, 3)):
                    window: dict[str, Any] = {"gt": gt, "lte": lte, "desc": desc, "limit": limit}
                    assert ours.select_events(execution_id, **window) == theirs.select_events(execution_id, **window), window


def test_notifications_are_selected_as_the_library_does(
    both: tuple[LogRecorder, POPOApplicationRecorder, list[int]],
) -> None:
    """Every section, with a start, a stop and topics, has the events of the library's; only the ids have gaps."""
    ours, theirs, ids = both
    assert ids == sorted(set(ids))
    for topics in ((), ("task_completed",), ("execution_created", "execution_failed"), ("nothing",)):
        for start, stop in ((None, None), (1, None), (3, 40), (len(ids) - 1, None), (20, 20), (None, 7)):
            for limit, inclusive in ((1, True), (10, True), (10, False), (10_000, False)):
                expected = theirs.select_notifications(start, limit, stop, topics, inclusive_of_start=inclusive)
                found = ours.select_notifications(
                    None if start is None else ids[start - 1],
                    limit,
                    None if stop is None else ids[stop - 1],
                    topics,
                    inclusive_of_start=inclusive,
                )
                assert [(ids.index(one.id) + 1, one.state) for one in found] == [(one.id, one.state) for one in expected]
    assert ours.max_notification_id() == ids[-1]


def test_a_notification_s_id_says_where_it_stands(both: tuple[LogRecorder, POPOApplicationRecorder, list[int]]) -> None:
    """It is its commit's position × 1000 + its place in it."""
    ours, _, ids = both
    for one in ours.select_notifications(None, 10_000):
        recorded: Any = LogMapper().to_domain_event(one)
        assert one.id // EVENTS_PER_COMMIT == recorded.position
    assert {id_ % EVENTS_PER_COMMIT for id_ in ids} > {0, 1}


def test_an_empty_log_has_no_notifications(bridge: Bridge) -> None:
    """Nothing was decided: nothing is there, and that is no error."""
    recorder = LogRecorder(bridge)
    assert (recorder.max_notification_id(), list(recorder.select_notifications(None, 10))) == (None, [])
    assert list(recorder.select_notifications(1, 10, inclusive_of_start=False)) == []


def test_nobody_saves_events_of_executions(bridge: Bridge) -> None:
    """The log takes no foreign writes: the recorder refuses them, whatever they are."""
    recorder = LogRecorder(bridge)
    assert recorder.insert_events([]) is None
    with pytest.raises(NotSupportedError):
        recorder.insert_events([event("e1", 1)])
    assert recorder.max_notification_id() is None


def test_nobody_saves_an_execution(space: dict[str, str], bridge: Bridge) -> None:
    """What `repository.get` gave cannot be saved, with events or without: `save` says why."""
    append(bridge, "e1", HISTORIES["redone"])
    with Executions(space) as executions, pytest.raises(NotSupportedError, match="commands"):
        executions.save(executions.repository.get("e1"))


# Executions ------------------------------------------------------------------------------------------------------------------


def test_an_execution_at_any_version(space: dict[str, str], bridge: Bridge) -> None:
    """`repository.get` gives the folded state, now and at every version, and knows what does not exist."""
    append(bridge, "e1", HISTORIES["redone"])
    commits = [codec.decode(data) for data in HISTORIES["redone"]]
    with Executions(space) as executions:
        state = executions.repository.get("e1")
        assert visible(state) == visible(fold("e1", commits))
        for version in range(1, state.version + 1):
            assert executions.repository.get("e1", version=version).version == version
        assert "e1" in executions.repository
        for nobody in ("e2", "_settings", "a.b", ">"):
            assert nobody not in executions.repository
            with pytest.raises(AggregateNotFoundError):
                executions.repository.get(nobody)


def test_snapshots_spare_the_beginning(space: dict[str, str], bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history is folded once; later only what is behind the snapshot, with the same state; older versions as well."""

    class Snapshotting(Executions):
        is_snapshotting_enabled = True
        snapshot_every = 5

    append(bridge, "e1", HISTORIES["redone"])
    with Snapshotting(space) as executions:
        first = executions.repository.get("e1")
        assert executions.snapshots is not None
        assert [one.originator_version for one in executions.snapshots.get("e1")] == [first.version]
        asked: list[int | None] = []
        select = executions.recorder.select_events
        monkeypatch.setattr(
            executions.recorder, "select_events", lambda *args, **window: (asked.append(window["gt"]), select(*args, **window))[1]
        )
        assert visible(executions.repository.get("e1")) == visible(first)
        executions.take_snapshot("e1", version=3)
        executions.take_snapshot("e1", version=3)
        assert executions.repository.get("e1", version=4).version == 4
        assert asked == [first.version, None, 3, 3]


def test_a_snapshot_that_cannot_be_read_is_told(space: dict[str, str]) -> None:
    """What stands in the place of a snapshot and is none is an error, not a state."""

    class Snapshotting(Executions):
        is_snapshotting_enabled = True

    with Snapshotting(space) as executions:
        assert executions.snapshots is not None
        executions.snapshots.recorder.insert_events([StoredEvent("e1", 1, "execution_state", b"{}")])
        with pytest.raises(Exception, match="no state of an execution"):
            executions.repository.get("e1")


def test_a_topic_that_nobody_knows_is_not_imported(bridge: Bridge) -> None:
    """A stored topic is looked up in a closed table: one that names a module is an error."""
    with pytest.raises(ValueError, match="no topic of the log"):
        LogMapper().to_domain_event(StoredEvent("e1", 1, "os:system", b"{}"))


def test_a_broken_commit_stops_whoever_reads_it(bridge: Bridge) -> None:
    """It is never skipped: reading raises `DataError`, and a subscription ends with it after what came before."""
    position = append(bridge, "e1", HISTORIES["completed"])
    append(bridge, "e2", [b"no commit"])
    recorder = LogRecorder(bridge)
    with pytest.raises(DataError):
        recorder.select_events("e2")
    with recorder.subscribe(gt=position * EVENTS_PER_COMMIT) as subscription, pytest.raises(DataError):
        next(subscription)


def test_the_factory_is_found_by_its_module(space: dict[str, str]) -> None:
    """`PERSISTENCE_MODULE=esexec.eventsourcing` is all that an application needs; views are kept elsewhere."""
    factory: Any = InfrastructureFactory.construct(space | {"PERSISTENCE_MODULE": "esexec.eventsourcing"})
    assert isinstance(factory, LogFactory)
    assert isinstance(factory.application_recorder(), LogRecorder)
    assert isinstance(factory.mapper(), LogMapper)
    for refused in (factory.tracking_recorder, factory.process_recorder):
        with pytest.raises(InfrastructureFactoryError, match="PERSISTENCE_MODULE"):
            refused()
    factory.close()
    factory.close()


class Ended(POPOTrackingRecorder):
    """A view: which executions have completed."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    def add(self, id: str, tracking: Tracking) -> None:
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self.ids.append(id)
            self._insert_tracking(tracking)


class Completions(Projection[Ended]):
    """A projection as anyone who knows the library writes it."""

    topics = ("execution_completed",)

    def process_event(self, domain_event: Recorded, tracking: Tracking) -> None:  # type: ignore[override]
        self.view.add(domain_event.originator_id, tracking)


def test_a_projection_of_the_library_runs_on_the_log(space: dict[str, str], bridge: Bridge) -> None:
    """Its runner processes what is there, and what comes while it runs, once each and in order."""
    for name in ("a", "b"):
        append(bridge, name, renamed(HISTORIES["completed"], name))
    with ProjectionRunner(application_class=Executions, projection_class=Completions, view_class=Ended, env=space) as runner:
        within(10, lambda: runner.view.ids == ["a", "b"])
        append(bridge, "c", renamed(HISTORIES["completed"], "c"))
        within(10, lambda: runner.view.ids == ["a", "b", "c"])
        assert runner.view.max_tracking_id("Executions") == LogRecorder(bridge).max_notification_id()


# Rivals and batches ------------------------------------------------------------------------------------------------------------


def test_two_writers_race_on_one_originator(space: dict[str, str]) -> None:
    """Of two that insert the same version at the same time one succeeds and the other hears of a conflict: for every version."""
    bridges = [Bridge(space["NATS_URL"], space["ESEXEC_NAMESPACE"]) for _ in range(2)]
    recorders = [StreamRecorder(one) for one in bridges]
    barrier = threading.Barrier(2)

    def insert(number: int) -> list[int]:
        won = []
        for version in range(1, 51):
            barrier.wait()
            try:
                recorders[number].insert_events([event("o", version, b"%d" % number)])
                won.append(version)
            except IntegrityError:
                pass
        return won

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(insert, range(2)))
    stored = recorders[0].select_events("o")
    assert [one.originator_version for one in stored] == list(range(1, 51))
    assert sorted(won[0] + won[1]) == list(range(1, 51))
    assert [[one.originator_version for one in stored if one.state == b"%d" % number] for number in range(2)] == won
    for one in bridges:
        one.close()


def test_batches_race_and_stay_whole(space: dict[str, str]) -> None:
    """Of overlapping batches, also of several originators, each is there as a whole or not at all."""
    bridges = [Bridge(space["NATS_URL"], space["ESEXEC_NAMESPACE"]) for _ in range(3)]
    recorders = [StreamRecorder(one) for one in bridges]
    barrier = threading.Barrier(3)

    def insert(number: int) -> list[bool]:
        outcomes = []
        for turn in range(15):
            barrier.wait()
            first = 10 * turn + number
            batch = [event("o", first + i, b"%d" % number) for i in range(4)] + [event(f"p{number}", turn, b"%d" % number)]
            try:
                recorders[number].insert_events(batch)
                outcomes.append(True)
            except IntegrityError:
                outcomes.append(False)
        return outcomes

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(insert, range(3)))
    stored = recorders[0].select_events("o")
    for number, of_one in enumerate(outcomes):
        mine = [one.originator_version for one in stored if one.state == b"%d" % number]
        assert mine == [10 * turn + number + i for turn, stands in enumerate(of_one) if stands for i in range(4)]
        beside = [one.originator_version for one in recorders[0].select_events(f"p{number}")]
        assert beside == [turn for turn, stands in enumerate(of_one) if stands]
    assert all(any(of_turn) for of_turn in zip(*outcomes, strict=True))
    for one in bridges:
        one.close()


def test_a_batch_is_as_large_as_the_server_takes(bridge: Bridge) -> None:
    """1000 events go in at once, and are read in pages; one more is refused before anything is sent."""
    recorder = StreamRecorder(bridge)
    with pytest.raises(DataError):
        recorder.insert_events([event("o", version) for version in range(1001)])
    assert recorder.select_events("o") == []
    recorder.insert_events([event("o", version) for version in range(1000)])
    recorder.insert_events([event("o", version, bytes(200_000)) for version in range(1000, 1003)])
    versions = [one.originator_version for one in recorder.select_events("o")]
    assert versions == list(range(1003))
    assert [one.originator_version for one in recorder.select_events("o", gt=5, lte=1001, desc=True, limit=3)] == [
        1001,
        1000,
        999,
    ]


@pytest.mark.parametrize("wrong", [event("a.b", 1), event("", 1), event("o", -1), StoredEvent("o", 1, "a\nb", b"")])
def test_what_cannot_be_a_subject_is_refused(bridge: Bridge, wrong: StoredEvent) -> None:
    """An originator cannot widen a subject; nothing of its batch is stored."""
    recorder = StreamRecorder(bridge)
    with pytest.raises(ProgrammingError):
        recorder.insert_events([event("good", 1), wrong])
    assert recorder.select_events("good") == []
    assert recorder.select_events("*") == []


def test_what_is_too_large_is_refused(bridge: Bridge) -> None:
    """The server would end the connection over it."""
    with pytest.raises(DataError, match="at most"):
        StreamRecorder(bridge).insert_events([event("o", 1, bytes(1024 * 1024))])


@pytest.mark.parametrize("count", [1, 3])
def test_an_answer_that_was_lost_is_no_conflict(bridge: Bridge, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """What was stored, although nobody said so, is recognised as ours; the same from somebody else is a conflict."""
    recorder, events = StreamRecorder(bridge), [event("o", version) for version in range(count)]
    real, calls = stored_module._store_first, []

    async def deaf(*args: Any) -> Any:
        answer = await real(*args)
        calls.append(answer)
        if len(calls) == 1:
            raise Unavailable("nobody heard the answer")
        return answer

    monkeypatch.setattr(stored_module, "_store_first", deaf)
    monkeypatch.setattr(stored_module, "_AGAIN_S", 0.0)
    recorder.insert_events(events)
    assert calls[1].error is not None
    assert recorder.select_events("o") == events
    with pytest.raises(IntegrityError):
        recorder.insert_events(events)


# Outages and ends ------------------------------------------------------------------------------------------------------------


def test_a_subscription_outlives_an_outage(own_server: NatsServer) -> None:
    """The server dies and comes back: what is stored then follows what was there before, nothing twice and nothing left out."""
    bridge = Bridge(own_server.url)
    recorder, heard = LogRecorder(bridge), []
    append(bridge, "a", renamed(HISTORIES["completed"], "a"))

    def listen() -> None:
        with recorder.subscribe(topics=["execution_created", "execution_completed"]) as subscription:
            heard.extend((one.originator_id, one.topic) for one in _until(subscription, 4))

    listener = threading.Thread(target=listen)
    listener.start()
    within(10, lambda: heard or recorder.max_notification_id())
    own_server.restart()
    append(bridge, "b", renamed(HISTORIES["completed"], "b"))
    listener.join(20)
    assert not listener.is_alive()
    assert heard == [(id_, f"execution_{what}") for id_ in ("a", "b") for what in ("created", "completed")]
    bridge.close()


def _until(subscription: Any, count: int) -> Iterator[Any]:
    for _ in range(count):
        yield next(subscription)


def test_an_insertion_outlives_an_outage(own_server: NatsServer) -> None:
    """A server that is back within seconds was never away; one that stays away is an `OperationalError`."""
    bridge = Bridge(own_server.url)
    recorder = StreamRecorder(bridge)
    own_server.restart()
    recorder.insert_events([event("o", 1), event("o", 2)])
    recorder.insert_events([event("o", 3)])
    assert [one.originator_version for one in recorder.select_events("o")] == [1, 2, 3]
    own_server.kill()
    with pytest.raises(OperationalError):
        recorder.insert_events([event("o", 4)])
    bridge.close()


def test_a_server_that_is_not_there_is_told(space: dict[str, str]) -> None:
    """Opening raises the library's `OperationalError`, and leaves nothing behind."""
    with pytest.raises(OperationalError, match="cannot reach"):
        Executions(space | {"NATS_URL": "nats://127.0.0.1:1"})


def test_the_end_wakes_who_waits(space: dict[str, str]) -> None:
    """Closing an application ends its subscriptions and calls; what is asked afterwards is refused; twice is once."""
    executions, errors = Executions(space), []
    subscription = executions.recorder.subscribe()

    def listen() -> None:
        try:
            next(subscription)
        except InterfaceError as error:
            errors.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    executions.close()
    executions.close()
    listener.join(10)
    assert not listener.is_alive()
    assert len(errors) == 1
    with pytest.raises(InterfaceError):
        executions.repository.get("e1")


async def test_it_works_beside_a_loop(space: dict[str, str]) -> None:
    """In a program that has a loop of its own, calls from a thread neither block it nor mix with it."""
    executions = await asyncio.to_thread(Executions, space)
    assert await asyncio.to_thread(executions.recorder.max_notification_id) is None
    await asyncio.to_thread(executions.close)
