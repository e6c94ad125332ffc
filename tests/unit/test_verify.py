"""`verify` finds what was edited, dropped, inserted, forged or reordered, and says where."""

import pytest

from esexec.domain import events as e
from esexec.domain.commit import Commit, hash_of
from esexec.domain.errors import CorruptHistory
from esexec.domain.evolve import fold
from esexec.domain.legality import objection
from esexec.domain.sharing.snapshot import snapshot
from esexec.domain.sharing.state import SharedState
from esexec.log import codec
from esexec.log.memory import MemoryLog
from esexec.log.port import Stored
from esexec.log.verify import verify
from tests.given import EXECUTION, at, cancel, completed, due, failed, failure, fatal, given, start, step


def a_history() -> list[Stored]:
    """Five commits: a start, a failure, its retry, and two completions."""
    history = given(start("a", step("b", "a")), failed("a"), due("a"), completed("a", 7, 2), completed("b"))
    return history.stored


def changed(one: Stored, **fields: object) -> Stored:
    """The same commit with other content."""
    commit = codec.decode(one.data)
    values = {name: getattr(commit, name) for name in commit.__struct_fields__}
    return one._replace(data=codec.encode(Commit(**(values | fields))))


def rechained(history: list[Stored]) -> list[Stored]:
    """What a forger would store: numbers, versions and hashes all fit."""
    forged: list[Stored] = []
    version = 1
    for n, one in enumerate(history, 1):
        prev = hash_of(forged[-1].data) if forged else ""
        forged.append(changed(Stored(n, n, one.data), n=n, version=version, prev=prev))
        version += len(codec.decode(one.data).events)
    return forged


async def test_a_whole_history_verifies() -> None:
    """What the core decided and the log stored is whole; the finding counts it and names the head."""
    log = MemoryLog()
    positions = [0]

    async def done(position: int | None) -> None:
        assert position is not None
        positions.append(position)

    for one in a_history():
        await log.append(EXECUTION, one.n, one.data, positions[-1], done)
    stored = await log.load(EXECUTION)
    found = verify(EXECUTION, stored)
    assert (found.ok, found.commits, found.problem) == (True, 5, None)
    assert found.events == sum(len(codec.decode(one.data).events) for one in stored)
    assert found.head == hash_of(stored[-1].data)


def test_no_history_at_all_verifies() -> None:
    """Nothing is wrong with nothing."""
    assert verify("e1", []).ok


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_an_edited_commit_breaks_the_chain_behind_it(n: int) -> None:
    """One changed byte of any commit but the last is found at its successor, or at itself if it can no longer be read."""
    history = a_history()
    one = history[n - 1]
    for index in range(0, len(one.data), 7):
        byte = one.data[index] ^ 1
        edited = [*history[: n - 1], one._replace(data=one.data[:index] + bytes([byte]) + one.data[index + 1 :]), *history[n:]]
        found = verify(EXECUTION, edited)
        assert not found.ok
        assert found.commit in (n, n + 1)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_dropped_commit_is_missed(n: int) -> None:
    """The first number that is not there is named."""
    history = a_history()
    found = verify(EXECUTION, history[: n - 1] + history[n:])
    assert (found.ok, found.problem) == (False, f"commit {n} is missing")


def test_a_dropped_commit_is_missed_though_the_rest_was_renumbered() -> None:
    """Numbers alone can be made to fit; the versions and hashes then do not."""
    history = a_history()
    moved = [changed(one._replace(n=one.n - 1), n=one.n - 1) for one in history[2:]]
    assert verify(EXECUTION, [history[0], *moved]).commit == 2


def test_an_inserted_commit_is_found() -> None:
    """A commit between two others fits neither number nor chain."""
    history = a_history()
    extra = changed(history[1], events=(e.ExecutionStarted(),))
    assert verify(EXECUTION, [*history[:2], extra, *history[2:]]).problem == "commit 2 stands after 2"


def test_reordered_commits_are_found() -> None:
    """Two commits that changed places are found at the first of them, whether by their numbers or by the order of storing."""
    history = a_history()
    swapped = [history[0], history[2], history[1], *history[3:]]
    assert verify(EXECUTION, swapped).problem == "commit 2 is missing"
    renumbered = [history[0], history[2]._replace(n=2), history[1]._replace(n=3), *history[3:]]
    assert verify(EXECUTION, renumbered).problem == "it calls itself commit 3"
    late = [history[0], history[1]._replace(position=9), *history[2:]]
    assert verify(EXECUTION, late).problem == "it was stored before its predecessor"


def test_a_commit_of_another_execution_is_found() -> None:
    """Each commit names the execution it belongs to."""
    assert verify("e2", a_history()).problem == "it belongs to e1"


def test_bytes_that_are_no_commit_are_found() -> None:
    """Garbage, a newer format, an unknown event: a finding, never an exception."""
    history = a_history()
    for data in (
        b"",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"v":2}',
        history[0].data.replace(b"execution_started", b"execution_stranded"),
    ):
        found = verify(EXECUTION, [history[0]._replace(data=data), *history[1:]])
        assert (found.ok, found.commit) == (False, 1)


def test_a_commit_of_a_newer_format_is_named() -> None:
    """Version 2 is not guessed at."""
    first = a_history()[0]
    with pytest.raises(CorruptHistory, match="commit format 2"):
        codec.decode(first.data.replace(b'{"v":1', b'{"v":2'))


def forgeries() -> dict[str, list[Stored]]:
    """Histories in which every number and every hash fits, and something was never decided."""
    whole = a_history()
    first = whole[0]

    def instead(*events: e.Event) -> list[Stored]:
        return rechained([first, changed(first, events=events)])

    created = codec.decode(first.data).events[0]
    assert isinstance(created, e.ExecutionCreated)
    later = at(5)
    broken = {name: getattr(created, name) for name in created.__struct_fields__} | {"plan": b"{}"}
    return {
        "created twice": instead(created),
        "no plan": rechained([changed(first, events=(e.ExecutionCreated(**broken), e.ExecutionStarted()))]),
        "begins with a task": rechained([changed(first, events=(e.TaskScheduled(step="a"),))]),
        "scheduled before started": rechained([changed(first, events=(created, e.TaskScheduled(step="a")))]),
        "completed early": instead(e.ExecutionCompleted()),
        "failed without failure": instead(e.ExecutionFailed(error=failure())),
        "cancelled without request": instead(e.ExecutionCancelled()),
        "task cancelled by nobody": instead(e.TaskCancelled(step="b", attempt=0)),
        "a step of no plan": instead(e.TaskCompleted(step="x", ended_at=later)),
        "another run": instead(e.TaskCompleted(step="a", run=2, ended_at=later)),
        "not scheduled": instead(e.TaskCompleted(step="b", ended_at=later)),
        "another attempt": instead(e.TaskCompleted(step="a", attempt=2, ended_at=later)),
        "out of turn": instead(e.TaskScheduled(step="b")),
        "completed twice": rechained(
            [*whole[:4], changed(whole[3], events=(e.TaskCompleted(step="a", attempt=2, ended_at=later),))]
        ),
        "retry of nothing": instead(e.TaskRetryScheduled(step="b", delay_ms=1, due=later)),
        "retry without timer": rechained([first, changed(whole[1], events=codec.decode(whole[1].data).events[:2]), whole[2]]),
        "skipped for nothing": instead(e.TaskSkipped(step="b", attempt=0, reason="dependency_failed", because="a")),
        "skipped for no failure": instead(e.TaskSkipped(step="b", attempt=0, reason="cancelled", because="a")),
        "after the end": rechained([*whole, changed(whole[0], events=(e.ExecutionCancelRequested(grace_ms=1),), time=later)]),
        "started twice": instead(e.ExecutionStarted()),
        "empty": rechained([first, changed(first, events=())]),
        "what executions share": instead(e.KeyBound(key="k", execution_id="e1")),
        "older than its predecessor": rechained([*whole[:1], changed(whole[1], time=at(-1))]),
    }


@pytest.mark.parametrize("name", list(forgeries()))
def test_an_event_that_nobody_can_have_decided_is_found(name: str) -> None:
    """A forger who recomputes every hash is still caught by the rules of the state machines."""
    found = verify(EXECUTION, forgeries()[name])
    assert not found.ok
    assert found.commit == len(forgeries()[name])


def test_a_second_serial_step_and_a_crowded_one_are_found() -> None:
    """More in flight than allowed, or two steps side by side that are not marked parallel, was not decided."""
    serial = given(start("a", "b")).state
    assert objection(serial, e.TaskScheduled(step="b")) is not None
    crowded = given(start("a", "b", plan_fields={"parallel": True}, config={"parallel_execution_limit": 1})).state
    assert objection(crowded, e.TaskScheduled(step="b")) is not None


def test_nothing_is_scheduled_while_the_execution_ends() -> None:
    """After a cancel or a failure neither an attempt nor a retry is legal."""
    cancelled = given(start("a", "b", plan_fields={"parallel": True}), failed("b"), cancel()).state
    failing = given(start("a", "b", plan_fields={"parallel": True}), fatal("b")).state
    for state in (cancelled, failing):
        assert objection(state, e.TaskScheduled(step="b", attempt=2)) is not None
        assert objection(state, e.TaskRetryScheduled(step="b", attempt=2, delay_ms=1, due=at(1))) is not None


def test_what_executions_share_is_held_together_by_the_chain() -> None:
    """A key's history has no rules beyond its numbers and hashes, and these are checked."""

    def commit(n: int, prev: str) -> Stored:
        event = e.KeyBound(key="k", execution_id="e1")
        return Stored(
            n, n, codec.encode(Commit(v=1, execution_id="_key-1", n=n, version=n, time=at(n), prev=prev, events=(event,)))
        )

    first = commit(1, "")
    assert verify("_key-1", [first, commit(2, hash_of(first.data))]).ok
    assert not verify("_key-1", [first, commit(2, "0" * 64)]).ok


@pytest.mark.parametrize("name", ["no plan", "begins with a task", "a step of no plan"])
def test_a_fold_over_what_cannot_have_happened_is_a_corrupt_history(name: str) -> None:
    """Whatever is wrong with a stored event, folding it raises `CorruptHistory` and nothing else."""
    with pytest.raises(CorruptHistory):
        fold(EXECUTION, [codec.decode(one.data) for one in forgeries()[name]])


def test_a_fold_notices_a_gap() -> None:
    """A missing commit, or a version that does not follow, is a `CorruptHistory`."""
    commits = [codec.decode(one.data) for one in a_history()]
    with pytest.raises(CorruptHistory):
        fold(EXECUTION, [commits[0], *commits[2:]])
    with pytest.raises(CorruptHistory):
        fold(EXECUTION, [codec.decode(changed(a_history()[0], version=2).data)])


def test_a_fold_notices_a_commit_of_another_execution() -> None:
    """A commit 1 that was copied from elsewhere carries no hash that could betray it; its execution's id does."""
    with pytest.raises(CorruptHistory, match="a commit of e1 stands where commit 1 belongs"):
        fold("another", [codec.decode(a_history()[0].data)])


def test_a_shared_entity_begins_where_it_was_compacted() -> None:
    """What was before is gone; its first commit's word stands for it, and what follows is checked as ever."""
    state = SharedState("_pools", n=7, version=9)
    data, previous = [], "f" * 64
    for n, event in ((8, snapshot(state)), (9, e.PoolRemoved(pool_id="g"))):
        commit = Commit(v=1, execution_id="_pools", n=n, version=n + 2, time=at(n), prev=previous, events=(event,))
        data.append(Stored(n, n, codec.encode(commit)))
        previous = hash_of(data[-1].data)
    found = verify("_pools", data)
    assert (found.ok, found.commits, found.events) == (True, 9, 11)
    assert not verify("_pools", data[1:]).ok
