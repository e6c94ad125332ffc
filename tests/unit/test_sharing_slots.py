"""Concurrency keys: so many at once with a key, so many in all, the keys in turn."""

from typing import Any

import pytest

from esexec.domain.sharing import fold
from esexec.domain.sharing.follow import MakeRoom, Tell, everything
from esexec.domain.sharing.requests import Denied, Granted, entity_of
from tests.sharing import Looks, Returns, Shared, given, in_words, slot, with_limits


def of(id: str, key: str, limit: int = 5, total: int = 2, policy: Any = "queue", priority: int = 5) -> Any:
    """One of several keys that have a total together."""
    return slot(id, key, limit, total, policy, priority=priority)


def went(shared: Shared) -> list[str]:
    """Who was granted, in order."""
    return [one.removeprefix("granted ") for one in in_words(shared.events) if one.startswith("granted")]


def test_so_many_hold_a_slot_at_once() -> None:
    """Up to `limit` are granted; the next waits, until one of them is done."""
    shared = given(slot("a", limit=2), slot("b", limit=2))
    shared.happen(slot("c", limit=2)).then("queued c").then_told("c waiting behind 0")
    shared.happen(Returns("a")).then("released a", "granted c").then_told("c granted")
    assert shared.wakes == []


def test_who_asked_first_is_next() -> None:
    """Within a key by priority, then by age."""
    shared = given(slot("a"), slot("b"), slot("c", priority=9), slot("d"), slot("e", priority=9))
    for id in ("a", "c", "e", "b"):
        shared.happen(Returns(id))
    assert went(shared) == ["a", "c", "e", "b", "d"]


def test_a_place_is_given_on_only_once() -> None:
    """A release that comes again frees nothing more."""
    shared = given(slot("a"), slot("b"), slot("c"))
    shared.happen(Returns("a")).then("released a", "granted b")
    verdict = shared.happen(Returns("a")).then().verdicts[0]
    assert (verdict.kind, verdict.effective) == ("done", False)


def test_what_is_given_back_and_asked_for_in_one_commit_passes_from_hand_to_hand() -> None:
    """Whoever waited goes before whoever just came."""
    shared = given(slot("a"), slot("b"))
    shared.happen(slot("c"), Returns("a")).then("released a", "granted b", "queued c")


def test_who_comes_and_goes_in_one_commit_was_never_there() -> None:
    """Nothing is written, and nothing is held."""
    shared = given(slot("a"))
    shared.happen(slot("b"), Returns("b")).then().then_told()


def test_without_a_total_each_key_is_an_entity_of_its_own() -> None:
    """With one, all keys of a scope are counted in one place; two scopes have nothing to do with each other."""
    entities = {
        entity_of(slot("a", key, 1, total, scope=scope).asked.ask) for key in "kl" for total in (None, 3) for scope in "st"
    }
    assert len(entities) == 6
    assert entity_of(slot("a", "k", 1, 3).asked.ask) == entity_of(slot("a", "l", 7, 9).asked.ask)


def test_the_total_counts_all_keys() -> None:
    """And the limit of each key is kept as well."""
    shared = given(of("a1", "a", limit=1), of("b1", "b"))
    shared.happen(of("c1", "c")).then("queued c1")
    shared.happen(of("a2", "a", limit=1)).then("queued a2")
    shared.happen(Returns("b1")).then("released b1", "granted c1")
    shared.happen(Returns("c1")).then("released c1")
    shared.happen(Returns("a1")).then("released a1", "granted a2")


def test_keys_take_turns() -> None:
    """A key with many who wait takes nothing from one with a single one."""
    shared = given(of("a1", "a", total=1), *[of(f"a{n}", "a", total=1) for n in range(2, 6)], of("b1", "b", total=1))
    shared.happen(of("b2", "b", total=1))
    while len(went(shared)) < 7:
        shared.happen(Returns(went(shared)[-1]))
    assert went(shared) == ["a1", "a2", "b1", "a3", "b2", "a4", "a5"]


def test_within_one_commit_keys_take_turns_as_well() -> None:
    """However they came."""
    shared = given([of(f"a{n}", "a", total=4) for n in range(4)] + [of("b0", "b", total=4), of("c0", "c", total=4)])
    assert went(shared) == ["a0", "b0", "c0", "a1"]


def test_of_keys_that_come_together_the_one_that_asked_first_is_first() -> None:
    """Whatever they are called."""
    shared = given([of("z0", "z"), of("m0", "m"), of("a0", "a")])
    assert went(shared) == ["z0", "m0"]


def test_new_keys_do_not_go_ahead_of_one_that_waits() -> None:
    """A key that was served before waits for no stream of keys that never were."""
    shared = given(of("a1", "a", total=1), of("a2", "a", total=1))
    for n in range(3):
        shared.happen(of(f"new{n}", f"new{n}", total=1))
    shared.happen(Returns("a1")).then("released a1", "granted a2")
    shared.happen(of("a3", "a", total=1))
    for n in range(3, 9):
        shared.happen(of(f"new{n}", f"new{n}", total=1))
        shared.happen(Returns(went(shared)[-1]))
    assert went(shared).index("a3") == 5  # after the three that had come before it


def test_a_key_is_not_forgotten_as_long_as_it_waits() -> None:
    """What is known of keys is bounded by those that hold something or wait."""
    shared = given(of("z1", "z", total=1), of("z2", "z", total=1))
    for n in range(20):
        shared.happen(of(f"k{n}", f"k{n}", total=1))
        shared.happen(Returns(went(shared)[-1]))
    assert "z2" in went(shared)[:3]
    for id in [*went(shared)[-1:], *[f"k{n}" for n in range(20)]]:
        shared.happen(Returns(id))
    assert len(shared.state.turns) <= 2


def test_skip_is_told_that_another_runs() -> None:
    """It is denied as skipped, with who runs; and it leaves no trace."""
    shared = given(slot("e1/_/1", policy="skip"))
    outcome = shared.happen(slot("e2/_/1", policy="skip")).then().then_told("e2/_/1 skipped skipped")
    error = outcome.denied["e2/_/1"].error
    assert (error.code, error.message) == ("skipped", "e1 runs with the key k")
    assert error.hint == 'policy="queue" lets it wait for its turn'


def test_skip_names_no_one_who_runs_with_another_key() -> None:
    """Where only the total is reached, that is what it is told."""
    shared = given(of("a1", "a", total=1))
    outcome = shared.happen(of("b1", "b", total=1, policy="skip"))
    assert outcome.denied["b1"].error.message == "there is no room for the key b: 1 of 1 run"


def test_skip_keeps_nobody_back() -> None:
    """One with a strict limit that is skipped does not stand in the way of those behind it."""
    shared = given(slot("a", limit=2))
    shared.happen(slot("b", limit=1, policy="skip"), slot("c", limit=2)).then("granted c")


def test_skip_runs_where_there_is_room() -> None:
    """But not ahead of those who wait."""
    shared = given(slot("a"))
    shared.happen(Returns("a"), slot("b", policy="skip")).then("released a", "granted b")
    shared.happen(slot("c"))
    shared.happen(Returns("b"), slot("d", policy="skip")).then("released b", "granted c").then_told(
        "c granted", "d skipped skipped"
    )


def test_replace_has_the_holder_go() -> None:
    """It waits; the oldest holder is to be cancelled in its favour, and it begins as soon as that one is gone."""
    shared = given(slot("a", limit=2), slot("b", limit=2))
    outcome = shared.happen(slot("c", limit=2, policy="replace")).then("queued c")
    assert outcome.follows == [Tell("c", shared.told["c"]), MakeRoom("a", by="c")]
    assert "c" not in shared.state.held
    shared.happen(Returns("a")).then("released a", "granted c")


def test_replace_takes_the_place_of_those_who_wait_with_its_key() -> None:
    """They are told that they were replaced, and by whom; those with other keys go on waiting."""
    shared = given(of("a1", "a", 1), of("b1", "b", 1), of("a2", "a", 1), of("b2", "b", 1), of("a3", "a", 1))
    outcome = shared.happen(of("a4", "a", 1, policy="replace"))
    outcome.then("queued a4", "dropped a2: replaced", "dropped a3: replaced")
    outcome.then_told("a4 waiting behind 1", "a2 skipped replaced", "a3 skipped replaced")
    answer = shared.told["a2"]
    assert isinstance(answer, Denied) and answer.error.message == "a4 took its place" and answer.error.hint
    assert [one.id for one in shared.state.waiting] == ["b2", "a4"]


def test_however_many_are_replaced_all_of_them_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By commits that follow each other at once; whether or not the state knows all of them by name."""
    monkeypatch.setattr(fold, "RECENT_DROPPED", 100)
    with with_limits(events_per_commit=250):
        crowd = [slot(f"b{n}") for n in range(600)]
        shared = given(slot("a"), *[crowd[at : at + 200] for at in range(0, 600, 200)])
        shared.happen(slot("c", policy="replace"), when=9)
        shared.elapse(0)
        answers = [shared.told[one.id] for one in crowd]
        assert all(isinstance(one, Denied) and one.skipped and one.error.code == "replaced" for one in answers)


def test_of_several_that_replace_the_last_one_stays() -> None:
    """Also where they come together; what came after it waits behind it."""
    shared = given(slot("a"))
    outcome = shared.happen(slot("b", policy="replace"), slot("c", policy="replace"), slot("d"))
    outcome.then("queued b", "queued c", "queued d", "dropped b: replaced")
    assert [one.id for one in shared.state.waiting] == ["c", "d"]
    assert shared.asked_to_go == [MakeRoom("a", by="c")]


def test_who_is_replaced_keeps_nobody_back() -> None:
    """One with a strict limit that stood before it in line is gone: if there is room then, it begins in the same commit."""
    shared = given(slot("a", limit=2), slot("b", limit=1))
    shared.happen(slot("c", limit=2, policy="replace")).then("queued c", "dropped b: replaced", "granted c")


def test_replace_does_not_cost_a_key_its_turn() -> None:
    """A key whose request is replaced over and over has waited since the first of them."""
    shared = given(of("x", "x", total=1), of("a1", "a", total=1))
    for n in range(3):
        shared.happen(of(f"b{n}", f"b{n}", total=1))
        shared.happen(of(f"a{n + 2}", "a", total=1, policy="replace"))
    shared.happen(Returns("x")).then("released x", "granted a4")


def test_replace_begins_at_once_where_there_is_room() -> None:
    """And nobody has to go."""
    shared = given(slot("a", limit=2))
    assert shared.happen(slot("b", limit=2, policy="replace")).then("granted b").follows == [Tell("b", shared.told["b"])]


def test_who_was_replaced_does_not_come_back() -> None:
    """Its message coming again does not take the place of the one that replaced it: it is told again."""
    shared = given(slot("a"), slot("b", policy="replace"), slot("c", policy="replace"))
    outcome = shared.happen(slot("b", policy="replace")).then().then_told("b skipped replaced")
    assert outcome.verdicts[0].kind == "known"


def test_who_has_to_go_is_told_again() -> None:
    """Whoever asks again is told again, and so is whoever stands in its way."""
    shared = given(slot("a"))
    shared.happen(slot("b", policy="replace"), crash=True)
    assert shared.asked_to_go == []
    shared.recover()
    assert shared.asked_to_go == [MakeRoom("a", by="b")]


def test_whoever_died_before_telling_leaves_all_that_is_needed() -> None:
    """Who holds something, and who was told no, is told from the state."""
    shared = given(slot("a"), slot("b", policy="replace"), slot("c", policy="replace"))
    shared.happen(Returns("a"), crash=True)
    denied = shared.told["b"]
    assert everything(shared.state) == [Tell("b", denied), Tell("c", Granted(entity=shared.entity, gate="concurrency"))]


def test_what_a_commit_has_no_room_for_is_done_at_once_after_it() -> None:
    """Of those who can have what is free, and of those whose place was taken, none is forgotten."""
    with with_limits(events_per_commit=2):
        shared = given(slot("a", limit=3), slot("b", limit=3), slot("c", limit=3), slot("d", limit=3), slot("e", limit=3))
        outcome = shared.happen(Returns("a"), Returns("b"), Returns("c")).then("released a", "released b")
        assert outcome.verdicts[2].kind == "later"
        assert outcome.wakes == [shared.state.time]
        shared.happen(Looks()).then("granted d", "granted e")
        for id in "fgh":
            shared.happen(slot(id, limit=3))
        shared.happen(slot("r", limit=3, policy="replace")).then("queued r", "dropped f: replaced")
        assert shared.state.wake is not None and shared.state.wake.due == shared.state.time
        shared.happen(Returns("c")).then("released c", "dropped g: replaced")
        shared.happen(Looks()).then("dropped h: replaced", "granted r")


def test_a_commit_that_is_full_skips_nobody_unheard() -> None:
    """Whether there is room for one that does not wait is decided when those before it have been: until then it waits."""
    with with_limits(events_per_commit=2):
        shared = given(slot("a", limit=3), slot("b", limit=3), slot("c", limit=3), slot("d", limit=3))
        shared.happen(Returns("a")).then("released a", "granted d")
        shared.happen(slot("e", limit=3))
        shared.happen(Returns("b"), slot("s", limit=3, policy="skip")).then("released b", "queued s")
        shared.happen(Looks()).then("granted e", "dropped s: skipped").then_told("e granted", "s skipped skipped")


@pytest.mark.parametrize("total", [None, 2])
def test_a_history_is_what_its_compaction_says(total: int | None) -> None:
    """What was before a compaction is not needed any more; turns, holders and those who wait are in it."""
    asks = [
        slot(f"{key}{n}", key, 1 if total is None else 2, total) for n in range(3) for key in ("a" if total is None else "ab")
    ]
    shared = given(*asks)
    shared.happen(compact=True).then("compacted")
    assert len(shared.commits) == 1
    while shared.state.held:
        shared.happen(Returns(next(iter(shared.state.held))))
    assert went(shared) == [one.id for one in asks]


def test_who_asked_first_is_next_whoever_is_decided_first() -> None:
    """Executors may come to decide in another order: it is when somebody asked that counts."""
    shared = given(slot("a", asked_s=-9), slot("late", asked_s=-1), slot("early", asked_s=-5))
    for id in ("a", "early"):
        shared.happen(Returns(id))
    assert went(shared) == ["a", "early", "late"]


@pytest.mark.parametrize("holds", [False, True], ids=["who replaces it waits", "who replaces it holds the slot"])
def test_one_that_asked_before_a_replacement_is_replaced_also_if_it_comes_behind(holds: bool) -> None:
    """What waited is cancelled in favour of who asked later; it does not queue up behind it."""
    shared = given(slot("a", asked_s=-9), slot("new", policy="replace", asked_s=-1))
    if holds:
        shared.happen(Returns("a"))
    shared.happen(slot("old", asked_s=-5)).then("queued old", "dropped old: replaced").then_told("old skipped replaced")
    shared.happen(slot("next", asked_s=0)).then("queued next")
