"""What an entity has become is written down in few words, and read again; also as it was written before."""

from datetime import timedelta

import msgspec

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.sharing.requests import AskForSlot, entity_of
from esexec.domain.sharing.snapshot import read_snapshot, snapshot
from esexec.domain.sharing.state import Grant, SharedState
from esexec.world import new_id
from tests.given import at
from tests.sharing import Shared, allocates, given, needs, pool, slot, visible


def crowded() -> Shared:
    """Pools of which somebody has something, and waits for something, and was denied something."""
    like = {"zone": "a", "memory": 16}
    shared = given(pool("p", 4, attributes=like), allocates("c", ("gpu", 1), ("gpu", 2)), needs("a", ("gpu", 3), priority=9))
    shared.happen(needs("b", ("gpu", 4)), needs("d", ("gpu", 1)))
    shared.happen(pool("p", 3, attributes=like))
    assert shared.state.dropped and shared.state.held and shared.state.waiting and shared.state.wake
    return shared


def test_what_is_written_down_is_what_was() -> None:
    """Every field, in its order."""
    state = crowded().state
    assert visible(read_snapshot(snapshot(state))) == visible(state)


def test_what_was_written_down_before_is_read() -> None:
    """As the plain JSON of the state, without what can be found out."""
    state = crowded().state
    plain = msgspec.structs.replace(state, names=set(), fitting=None, none_in_vain=False)
    old = e.Compacted(state=msgspec.Raw(msgspec.json.encode(plain)))
    assert visible(read_snapshot(old)) == visible(state)


def test_as_many_as_a_key_may_let_run_can_be_written_down() -> None:
    """`limits.concurrency_limit` executions that hold a slot fit into a message, with ids as clients make them."""
    ask = AskForSlot(scope="plan:" + "p" * 59, key="k" * 200, limit=limits.concurrency_limit)
    state = SharedState(entity_of(ask), n=1, version=1, time=at(0))
    for number in range(limits.concurrency_limit):
        time = at(0) + timedelta(microseconds=number)
        grant = Grant(f"{new_id()}/_/1-0", ask, time, time)
        state.held[grant.id] = grant
    assert len(bytes(snapshot(state).state)) < limits.message_bytes - 2 * limits.headers_bytes


def test_what_many_asked_for_is_written_down_once() -> None:
    """Each further one costs its id, its times and little else."""
    asks = [slot(f"e{n}", "x" * 500, 300) for n in range(200)]
    sizes = [len(bytes(snapshot(given(some).state).state)) for some in (asks[:100], asks)]
    assert sizes[1] - sizes[0] < 100 * 80
