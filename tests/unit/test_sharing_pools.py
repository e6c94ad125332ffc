"""Resource pools: never more than there is, all or nothing, in turn; what is held comes back."""

from typing import Any

import msgspec
import pytest

from esexec.domain import commands as c
from esexec.domain import limits
from esexec.domain.flow import Resource, ResourceRequirement
from esexec.domain.sharing.decide import SharedDecision
from esexec.domain.sharing.fitting import Fitting
from esexec.domain.sharing.fold import has_more
from esexec.domain.sharing.follow import Tell
from esexec.domain.sharing.requests import Denied, Granted
from tests.given import at
from tests.sharing import Looks, Returns, Shared, allocates, given, in_words, needs, pool, with_limits


def gpu(amount: float = 1, **constraints: Any) -> ResourceRequirement:
    return ResourceRequirement(type="gpu", amount=amount, constraints=constraints)


def release(*ids: str, allocation: str | None = None, id: str = "release") -> c.ReleaseResources:
    return c.ReleaseResources(id=id, resource_ids=ids, allocation=allocation)


def remove(pool_id: str) -> c.RemovePool:
    return c.RemovePool(id=f"remove-{pool_id}", pool_id=pool_id)


def renew(allocation: str, id: str = "renew") -> c.RenewResources:
    return c.RenewResources(id=id, allocation=allocation)


def resources(shared: Shared, id: str) -> list[str]:
    return [one.id for one in shared.state.held[id].resources]


def denied(shared: Shared, id: str) -> tuple[str, str]:
    answer = shared.told[id]
    assert isinstance(answer, Denied) and answer.error.code == "resource_unavailable" and answer.error.hint
    assert answer.error.retryable is False and not answer.skipped
    return answer.error.message, answer.error.hint


# Who gets what -----------------------------------------------------------------------------------------------------------


def test_what_is_free_is_given_at_once() -> None:
    """With what it costs, and under an id with which it is given back."""
    shared = given(pool("p", 4, cost_per_unit=2.0, attributes={"memory": 8}))
    shared.happen(needs("a", ("gpu", 3))).then("granted a: 3 p").then_told("a granted")
    given_to = (Resource(id="r2-1", pool="p", type="gpu", amount=3, cost_per_unit=2.0, attributes={"memory": 8}),)
    assert shared.told["a"] == Granted(entity="_pools", gate="resources", resources=given_to)


def test_what_is_not_free_is_waited_for() -> None:
    """Until somebody gives back what it has."""
    shared = given(pool("p", 4), needs("a", ("gpu", 3)))
    shared.happen(needs("b", ("gpu", 2))).then("queued b").then_told("b waiting behind 0")
    shared.happen(Returns("a")).then("released a", "granted b: 2 p")


def test_several_requirements_are_met_together_or_not_at_all() -> None:
    """Nobody holds a part of what it needs while it waits for the rest."""
    shared = given(pool("p", 2), pool("q", 1, "cpu"), needs("a", ("cpu", 1)))
    shared.happen(needs("b", ("gpu", 1), ("cpu", 1))).then("queued b")
    assert list(shared.state.held) == ["a"]
    shared.happen(Returns("a")).then("released a", "granted b: 1 p + 1 q")


def test_the_least_loaded_pool_is_taken() -> None:
    """As far as it fits; a requirement is never split over pools."""
    shared = given(pool("p", 4), pool("q", 4), needs("a", ("gpu", 1)))
    shared.happen(needs("b", ("gpu", 2))).then("granted b: 2 q")
    shared.happen(needs("c", ("gpu", 3))).then("granted c: 3 p")
    shared.happen(needs("d", ("gpu", 3))).then("queued d")


def test_two_requirements_may_be_met_from_one_pool() -> None:
    """If it has room for both; else each finds its own, wherever it stands."""
    shared = given(pool("p", 3), needs("a", ("gpu", 1), ("gpu", 2)))
    assert in_words(shared.events)[-1] == "granted a: 1 p + 2 p"
    other = given(pool("p", 3), pool("q", 2))
    other.happen(needs("a", gpu(2), gpu(3))).then("granted a: 2 q + 3 p")


def test_constraints_say_which_pools_will_do() -> None:
    """The pool's attributes must satisfy them."""
    shared = given(pool("p", 1, attributes={"memory": 8, "zone": "a"}), pool("q", 1, attributes={"memory": 16, "zone": "b"}))
    shared.happen(needs("a", gpu(1, min_memory=12))).then("granted a: 1 q")
    shared.happen(needs("b", gpu(1, zone=["b", "c"]))).then("queued b")
    shared.happen(needs("c", gpu(1, zone="a"))).then("granted c: 1 p")


def test_fractions_add_up() -> None:
    """Ten tenths are one, whatever floats make of it; an eleventh is too much, however small."""
    shared = given(pool("p", 1), pool("q", 1, "cpu"), *[needs(f"a{n}", ("gpu", 0.1)) for n in range(10)])
    shared.happen(needs("b", ("gpu", 0.1))).then("queued b")
    shared.happen(Returns("b"))
    shared.happen(needs("c", ("gpu", 1e-12))).then("queued c")


# Turns -------------------------------------------------------------------------------------------------------------------


def test_the_higher_priority_is_first() -> None:
    """Then whoever asked first."""
    shared = given(pool("p", 1), needs("a", ("gpu", 1)), needs("b", ("gpu", 1)), needs("c", ("gpu", 1), priority=9))
    shared.happen(Returns("a")).then("released a", "granted c: 1 p")
    shared.happen(Returns("c")).then("released c", "granted b: 1 p")


def test_a_clients_priority_is_the_highest_that_it_asks_with() -> None:
    """A command has none of its own: its requirements do."""
    urgent = ResourceRequirement(type="gpu", priority=8)
    shared = given(pool("p", 1), pool("q", 1, "cpu"), needs("a", ("gpu", 1)), needs("b", ("gpu", 1), priority=7))
    shared.happen(c.AllocateResources(id="c", requirements=(ResourceRequirement(type="cpu", priority=1), urgent)))
    assert [one.id for one in shared.state.waiting] == ["c", "b"]


def test_who_needs_much_is_not_overtaken_by_who_needs_little() -> None:
    """What it could use is kept for it; what it could not use is free for others."""
    shared = given(pool("p", 4), pool("q", 1, "cpu"), needs("a", ("gpu", 2)))
    shared.happen(needs("big", ("gpu", 4))).then("queued big")
    shared.happen(needs("small", ("gpu", 1))).then("queued small")
    shared.happen(needs("other", ("cpu", 1))).then("granted other: 1 q")
    shared.happen(Returns("a")).then("released a", "granted big: 4 p")


def test_who_does_not_wait_keeps_nothing() -> None:
    """Somebody behind it in the same commit gets what it did not need."""
    shared = given(pool("p", 4), needs("a", ("gpu", 2)))
    shared.happen(allocates("big", ("gpu", 4), wait=False), needs("b", ("gpu", 1))).then("granted b: 1 p")
    assert denied(shared, "big") == ("what is asked for is not free now", "wait for it, or ask later")


def test_who_can_never_be_served_keeps_nothing() -> None:
    """It is told so at once, and somebody behind it gets what is free."""
    shared = given(pool("p", 4))
    shared.happen(needs("big", ("gpu", 5)), needs("b", ("gpu", 1))).then("granted b: 1 p")
    assert denied(shared, "big") == ("5 gpu: no pools have so much", "see client.resources.pools() for their capacities")


def test_who_does_not_wait_does_not_go_ahead_either() -> None:
    """What is kept for those before it is not free."""
    shared = given(pool("p", 4), needs("a", ("gpu", 2)), needs("big", ("gpu", 4)))
    shared.happen(allocates("b", ("gpu", 1), wait=False)).then().then_told("b denied resource_unavailable")


# What cannot be ----------------------------------------------------------------------------------------------------------


def test_of_what_there_is_no_pool_nothing_is_waited_for() -> None:
    """It is denied, with the types that there are."""
    shared = Shared("_pools")
    shared.happen(needs("a", ("tpu", 1)))
    assert denied(shared, "a") == ("there is no pool of tpu", "declare one: client.resources.declare")
    shared.happen(pool("p"), pool("q", 1, "cpu"), needs("b", ("tpu", 1)))
    assert denied(shared, "b") == ("there is no pool of tpu", "there are: cpu, gpu")


def test_what_no_pool_satisfies_is_denied() -> None:
    """With the constraints that are not met."""
    shared = given(pool("p", 1, attributes={"memory": 8}))
    shared.happen(needs("a", gpu(1, min_memory=16)))
    assert denied(shared, "a")[0] == "no pool of gpu satisfies {'min_memory': 16}"


def test_what_the_pools_do_not_have_together_is_denied() -> None:
    """Each requirement would fit, but not all of them."""
    shared = given(pool("p", 3))
    shared.happen(needs("a", gpu(2), gpu(2)))
    assert denied(shared, "a")[0] == "2 gpu, 2 gpu: no pools have so much"


# Pools come, change and go -----------------------------------------------------------------------------------------------


def test_a_larger_pool_serves_those_who_wait() -> None:
    """In the commit that declares it."""
    shared = given(pool("p", 1), needs("a", ("gpu", 1)), needs("b", ("gpu", 1)))
    shared.happen(pool("p", 2)).then("declared p", "granted b: 1 p")


def test_a_smaller_pool_takes_nothing_away() -> None:
    """What was given stays so; nothing more is given until there is room again."""
    shared = given(pool("p", 4), needs("a", ("gpu", 2)), needs("b", ("gpu", 2)), needs("c", ("gpu", 1)))
    shared.happen(pool("p", 2)).then("declared p")
    shared.happen(Returns("a")).then("released a")
    shared.happen(Returns("b")).then("released b", "granted c: 1 p")


def test_who_waits_for_what_is_no_more_is_told() -> None:
    """A pool that shrinks or goes leaves nobody waiting in vain, and keeps nothing for them."""
    shared = given(pool("p", 4), needs("a", ("gpu", 4)), needs("big", ("gpu", 3)), needs("small", ("gpu", 1)))
    shared.happen(pool("p", 2)).then("declared p", "dropped big: resource_unavailable")
    assert denied(shared, "big")[0] == "3 gpu: no pools have so much"
    shared.happen(needs("big", ("gpu", 3))).then().then_told("big denied resource_unavailable")
    shared.happen(Returns("a")).then("released a", "granted small: 1 p")


def test_a_pool_that_is_used_cannot_go() -> None:
    """It is refused, with who uses it; once that one is done the pool goes, and with it what was waited for."""
    shared = given(pool("p"), pool("q", 1, "cpu"), needs("a", ("gpu", 1)), needs("b", ("gpu", 1), ("cpu", 1)))
    error = shared.happen(remove("p")).then().then_refused("pool_in_use")
    assert error.message == "1 hold something of pool p, for instance a"
    shared.happen(Returns("b"), Returns("a"))
    shared.happen(needs("c", ("cpu", 1)), remove("p")).then("removed p", "granted c: 1 q")
    shared.happen(needs("d", ("gpu", 1)))
    assert denied(shared, "d")[0] == "there is no pool of gpu"


def test_what_changes_nothing_is_no_event() -> None:
    """The same pool again, a pool that is not there, resources that nobody has."""
    shared = given(pool("p"))
    again = pool("p")
    again = msgspec.structs.replace(again, id="again")
    for command in (again, remove("q"), release("r9-1"), release(allocation="nobody")):
        verdict = shared.happen(command).then().verdicts[0]
        assert (verdict.kind, verdict.effective) == ("done", False), command


def test_a_namespace_has_so_many_pools() -> None:
    """`limits.pools`; those that are there can be changed even then."""
    with with_limits(pools=2):
        shared = given(pool("p"), pool("q"))
        error = shared.happen(pool("r")).then().then_refused("too_many_pools")
        assert error.message == "the namespace has 2 pools"
        shared.happen(pool("q", 3)).then("declared q")


@pytest.mark.parametrize("held", [4, 2], ids=["nothing is free", "too little is free"])
def test_of_those_who_ask_for_the_same_only_the_first_is_tried(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it is to be used, and how urgent it is, makes no difference; each is judged once, until the pools change."""
    crowd = [gpu(3, min_memory=8) for _ in range(150)]
    crowd = [msgspec.structs.replace(one, duration_ms=number, priority=number % 11) for number, one in enumerate(crowd)]
    large = pool("p", 4, attributes={"memory": 16})
    shared = given(large, pool("c", 9, "cpu"), needs("a", ("gpu", held)), [needs(f"b{n}", one) for n, one in enumerate(crowd)])
    tried, judged, chosen, impossible = [], [], Fitting.chosen, Fitting.impossible
    monkeypatch.setattr(Fitting, "chosen", lambda *of: tried.append(of) or chosen(*of))  # type: ignore[func-returns-value]
    monkeypatch.setattr(Fitting, "impossible", lambda *of: judged.append(of) or impossible(*of))  # type: ignore[func-returns-value]
    state = shared.fold()
    assert not has_more(state)
    assert len(tried) <= 2 and len(judged) == len(crowd)
    for n in range(9):
        decision = SharedDecision(state, at(9))
        decision.acquire(f"c{n}", needs("", gpu(3, min_memory=8)).asked)
        decision.settle()
        assert in_words(decision.events) == [f"queued c{n}"]
        assert not has_more(state)
    assert len(tried) <= 20 and len(judged) < len(crowd) + 20


# Clients -----------------------------------------------------------------------------------------------------------------


def test_a_command_that_comes_again_is_told_again() -> None:
    """It allocates nothing a second time, not even after it was released."""
    shared = given(pool("p", 2), allocates("c", ("gpu", 1)))
    assert shared.happen(allocates("c", ("gpu", 1))).then().then_told("c granted").verdicts[0].kind == "known"
    shared.happen(release(allocation="c")).then("released c")
    assert shared.happen(allocates("c", ("gpu", 1))).then().then_told().verdicts[0].kind == "known"


def test_a_lease_ends_by_itself() -> None:
    """What a client holds comes back when its lease is over; a timer is asked for that comes then."""
    shared = given(pool("p"), allocates("c", ("gpu", 1), lease_s=5), needs("b", ("gpu", 1)))
    assert shared.wakes == [at(7)]
    assert [one.until for one in shared.happen(allocates("c", ("gpu", 1))).follows if isinstance(one, Tell)] == [at(7)]
    shared.happen(Looks(), when=6.9).then()
    outcome = shared.wake()
    assert outcome is not None
    outcome.then("expired c", "granted b: 1 p")


def test_each_lease_ends_when_it_is_over() -> None:
    """A shorter one that came later ends first, and a timer comes for each."""
    shared = given(pool("p", 2), allocates("long", ("gpu", 1), lease_s=60), allocates("short", ("gpu", 1), lease_s=5))
    ends = []
    while shared.wake():
        ends.append((list(shared.state.held), shared.now))
    assert ends[0] == (["long"], at(8)) and ends[-1] == ([], at(62))


def test_a_lease_is_renewed_by_a_word() -> None:
    """For as long again as it was asked for; the timer that comes meanwhile finds nothing, and comes again."""
    shared = given(pool("p"), allocates("c", ("gpu", 1), lease_s=5))
    shared.happen(renew("c"), when=6).then("renewed c until 11")
    assert shared.happen(renew("c"), when=6.5).then().verdicts[0].kind == "known"
    shared.elapse(4)
    assert list(shared.state.held) == ["c"]
    shared.elapse(1)
    assert (list(shared.state.held), shared.history[-1].time) == ([], at(11))


@pytest.mark.parametrize("whose", ["nobody", "x", "w"])
def test_only_who_holds_something_on_a_lease_can_renew_it(whose: str) -> None:
    """Not one who is unknown, one who has no lease, or one who still waits."""
    shared = given(pool("p"), needs("x", ("gpu", 1)), allocates("w", ("gpu", 1)))
    error = shared.happen(renew(whose)).then().then_refused("unknown_allocation")
    assert error.message == f"{whose} holds no resources on a lease"


def test_what_a_lease_held_and_lost_is_not_renewed() -> None:
    """It has to be allocated again."""
    shared = given(pool("p"), allocates("c", ("gpu", 1), lease_s=1))
    shared.elapse(5)
    shared.happen(renew("c")).then_refused("unknown_allocation")


def test_an_allocation_is_given_back_as_a_whole() -> None:
    """By the command that allocated it, also while it still waits."""
    shared = given(pool("p"), allocates("c", ("gpu", 1)), allocates("d", ("gpu", 1)), allocates("e", ("gpu", 1)))
    shared.happen(release(allocation="d", id="r1")).then("dropped d")
    shared.happen(release(allocation="c", id="r2")).then("released c", "granted e: 1 p")
    assert shared.happen(release(allocation="c", id="r2")).then().verdicts[0].kind == "known"


def test_resources_are_given_back_one_by_one() -> None:
    """What is left stays held; with the last of them the grant is over."""
    shared = given(pool("p", 2), pool("q", 1, "cpu"), allocates("c", ("gpu", 2), ("cpu", 1)), needs("b", ("gpu", 1)))
    first, second = resources(shared, "c")
    shared.happen(release(first, "r99-1", id="r1")).then(f"released c: {first}", "granted b: 1 p")
    assert resources(shared, "c") == [second]
    shared.happen(release(first, second, id="r2")).then("released c")
    assert "c" not in shared.state.held


def test_resources_of_several_are_given_back_by_one_command() -> None:
    """By their ids, whoever holds them."""
    shared = given(pool("p", 3), allocates("c", ("gpu", 1)), allocates("d", ("gpu", 1), ("gpu", 1)))
    ids = [*resources(shared, "c"), resources(shared, "d")[1]]
    shared.happen(release(*ids)).then("released c", f"released d: {ids[1]}")


# Room --------------------------------------------------------------------------------------------------------------------


def test_a_release_that_a_commit_has_no_room_for_comes_again() -> None:
    """It finds only what is left."""
    with with_limits(events_per_commit=2):
        shared = given(pool("p", 3), *[allocates(id, ("gpu", 1), lease_s=900) for id in "abc"])
        ids = [one for id in "abc" for one in resources(shared, id)]
        outcome = shared.happen(release(*ids)).then("released a", "released b")
        assert outcome.verdicts[0].kind == "later"
        shared.happen(release(*ids)).then("released c")


def test_leases_that_end_together_end_though_a_commit_has_no_room_for_all() -> None:
    """The rest is looked at again at once, and so are those who wait for it."""
    with with_limits(events_per_commit=2):
        shared = given(pool("p", 3), [needs("a", ("gpu", 1), lease_s=5), needs("b", ("gpu", 1), lease_s=5)])
        shared.happen(needs("c", ("gpu", 1), lease_s=4), when=3)
        shared.happen(needs("d", ("gpu", 3)))
        shared.elapse(4)
        assert in_words(shared.events)[-4:] == ["expired a", "expired b", "expired c", "granted d: 3 p"]
        assert {commit.time for commit in shared.history[-2:]} == {at(7)}


def test_who_leaves_no_trace_takes_up_no_room() -> None:
    """A commit keeps room for each that comes; what those who are denied did not need is used in the same commit."""
    with with_limits(events_per_commit=2):
        shared = given(pool("p", 1), needs("a", ("gpu", 1), lease_s=5), needs("b", ("gpu", 1)))
        never = [needs(f"c{n}", ("tpu", 1)) for n in range(3)]
        outcome = shared.happen(*never, Looks(), when=7).then()
        assert [one.kind for one in outcome.verdicts] == ["done", "done", "later", "later"]
        shared.happen(Looks()).then("expired a", "granted b: 1 p")
        shared.happen(needs("d", ("gpu", 1)))
        shared.happen(Returns("b"), never[0]).then("released b", "granted d: 1 p")


def test_those_who_wait_in_vain_are_told_though_a_commit_has_no_room_for_all() -> None:
    """They keep nothing from the others meanwhile."""
    with with_limits(events_per_commit=2):
        shared = given(pool("p", 4), needs("a", ("gpu", 4)), *[needs(f"b{n}", ("gpu", 3)) for n in range(3)])
        shared.happen(needs("c", ("gpu", 1)))
        shared.happen(pool("p", 2)).then("declared p", "dropped b0: resource_unavailable")
        shared.happen(Returns("a")).then("released a", "dropped b1: resource_unavailable")
        shared.happen(Looks()).then("dropped b2: resource_unavailable", "granted c: 1 p")


def test_a_commit_that_denies_who_has_come_has_room_for_those_who_wait_in_vain() -> None:
    """Who is denied leaves no trace: the room that was kept for it is used."""
    with with_limits(events_per_commit=1):
        shared = given(pool("p", 4), needs("a", ("gpu", 4)), needs("b", ("gpu", 3)), needs("c", ("gpu", 3)))
        shared.happen(pool("p", 2)).then("declared p")
        shared.happen(needs("d", ("gpu", 3))).then("dropped b: resource_unavailable")
        shared.elapse(0)
        assert [denied(shared, id)[0] for id in "bcd"] == ["3 gpu: no pools have so much"] * 3


@pytest.mark.parametrize("crash", [False, True])
def test_however_many_wait_in_vain_all_of_them_are_told(crash: bool) -> None:
    """By commits that follow each other at once, though nothing is free; also where the first one's executor died of it."""
    crowd = [needs(f"b{n}", ("gpu", 3)) for n in range(1_200)]
    shared = given(pool("p", 4), needs("a", ("gpu", 4)), *[crowd[at : at + 400] for at in range(0, 1_200, 400)])
    shared.happen(pool("p", 2), when=9, crash=crash)
    shared.recover()
    shared.elapse(0)
    assert not shared.state.waiting
    assert {denied(shared, one.id)[0] for one in crowd} == {"3 gpu: no pools have so much"}


def test_a_commit_has_room_for_so_many_bytes() -> None:
    """What is given out says what it is like, and fills it long before 500 events. Nothing is lost, each commit can be stored."""
    like = {f"attribute{n}": "x" * 100 for n in range(30)}
    shared = given(pool("p", 1_000, attributes=like))
    assert len(msgspec.json.encode(shared.state.pools["p"])) < limits.pool_bytes
    asks = [needs(f"a{n}", *[gpu()] * limits.requirements) for n in range(50)]
    shared.happen(*asks)
    for _ in range(50):
        if shared.pending:
            shared.recover()
        elif shared.wakes:
            shared.wake()
    assert not shared.pending
    assert shared.told.keys() == {one.id for one in asks}
    assert set(shared.state.held) == shared.told.keys()
    assert 10 < len(shared.history) < 30
    assert all(len(msgspec.json.encode(one)) < 2 * limits.commit_bytes for one in shared.history)


def test_a_history_may_begin_amid_what_a_compaction_made_needless() -> None:
    """Whoever purges it may die over it: what is left before the compaction is passed over."""
    shared = given(pool("p", 3), allocates("c", ("gpu", 1)), needs("b", ("gpu", 1)))
    shared.happen(compact=True)
    shared.happen(Returns("b")).then("released b")
    whole = shared.state
    for first in range(4):
        shared.commits = shared.history[first:]
        found = shared.fold()
        assert (found.n, found.version, list(found.held)) == (whole.n, whole.version, ["c"])
