"""Rate limits: so many begin within any window, in turn, and nobody is forgotten."""

import pytest

from esexec.domain import events as e
from esexec.domain.sharing import limiter
from esexec.domain.sharing.decide import SharedDecision
from esexec.domain.sharing.follow import SetWake, Tell, everything
from esexec.domain.sharing.requests import AskToBegin, Granted, entity_of
from tests.given import at
from tests.sharing import Looks, Returns, Shared, begins, given, in_words, slot, with_limits


def test_where_there_is_room_one_begins_at_once() -> None:
    """Up to `max_executions` are granted as they ask; the event says what was asked, for nothing else does."""
    shared = given(begins("a", 2))
    outcome = shared.happen(begins("b", 2)).then("granted b").then_told("b granted")
    assert outcome.events == [e.RequestGranted(request_id="b", ask=begins("b", 2).asked.ask)]
    assert shared.told["b"] == Granted(entity=shared.entity, gate="rate_limit")


def test_where_there_is_none_one_waits_until_the_window_has_passed() -> None:
    """It is told until when, and a timer is asked for that wakes the limit then."""
    shared = given(begins("a", 1, 10))
    outcome = shared.happen(begins("b", 1, 10), when=5).then("queued b").then_told("b waiting behind 0 until 11")
    assert outcome.wakes == [at(11)]
    waking = shared.wake()
    assert waking is not None
    waking.then("granted b").then_told("b granted")
    assert shared.now == at(11)


def test_the_window_is_half_open() -> None:
    """What began a whole window ago is out of it; a microsecond less, and it is not."""
    shared = given(begins("a", 1, 10))
    shared.happen(begins("b", 1, 10), when=10.999999).then("queued b")
    shared.happen(Returns("b"))
    shared.happen(begins("c", 1, 10), when=11).then("granted c")


def test_who_asked_first_begins_first() -> None:
    """Within one priority nobody goes ahead, whoever comes together with whom."""
    shared = given(begins("a"), begins("b"), [begins("c"), begins("d")])
    shared.elapse(100)
    assert in_words(shared.events) == ["granted a", "queued b", "queued c", "queued d", "granted b", "granted c", "granted d"]


def test_who_came_and_went_in_one_commit_leaves_the_order_of_the_others() -> None:
    """Places are not given twice, even where some are given up at once."""
    shared = given(begins("a"))
    three, gone = [begins("b"), begins("c"), begins("d")], [Returns("b"), Returns("c")]
    shared.happen(*three, *gone, begins("e"), when=11).then("granted d", "queued e")


def test_higher_priority_goes_first() -> None:
    """Even if it came later; then age decides."""
    shared = given(begins("a"), begins("b", priority=3), begins("c", priority=9), begins("d", priority=9))
    shared.elapse(100)
    assert in_words(shared.events)[4:] == ["granted c", "granted d", "granted b"]


def test_each_is_judged_by_its_own_rule_in_turn() -> None:
    """Several rules on one key count the same grants; whoever waits first holds up those behind, even by a stricter rule."""
    shared = given(begins("a", 2), begins("b", 1), begins("c", 2))
    assert in_words(shared.events) == ["granted a", "queued b", "queued c"]
    shared.elapse(9)
    assert in_words(shared.events)[3:] == ["granted b", "granted c"]
    assert [commit.time for commit in shared.history[3:]] == [at(11)]


def test_who_does_not_wait_is_told_so() -> None:
    """`on_limit="reject"`: denied, not retried, with what would help; and it leaves no trace in the history."""
    shared = given(begins("a"))
    outcome = shared.happen(begins("b", reject=True), when=5).then().then_told("b denied rate_limited")
    error = outcome.denied["b"].error
    assert (error.retryable, error.retry_after_ms, error.hint) == (False, 6_000, 'on_limit="wait" lets it wait for its turn')
    assert shared.state.n == 1


def test_who_does_not_wait_does_not_go_ahead_of_those_who_do() -> None:
    """A free place is theirs; it is told how long it would take behind them."""
    shared = given(begins("a", 2), begins("b", 2), begins("c", 2))
    outcome = shared.happen(begins("d", 2, reject=True), when=5)
    assert outcome.denied["d"].error.retry_after_ms == 7_000  # with c at 11 there is room, and at 12 again


def test_who_does_not_wait_keeps_nobody_back() -> None:
    """One with a strict rule that is rejected does not stand in the way of those behind it with another."""
    shared = given(begins("a", 2))
    shared.happen(begins("b", 1, reject=True), begins("c", 2)).then("granted c").then_told("c granted", "b denied rate_limited")


def test_who_withdraws_is_out_of_the_line() -> None:
    """Its place is the next one's, whom a timer wakes all the same."""
    shared = given(begins("a"), begins("b"), begins("c"))
    shared.happen(Returns("b")).then("dropped b").then_told()
    waking = shared.wake()
    assert waking is not None
    waking.then("granted c")
    assert shared.now == at(11)


def test_what_began_is_not_given_back() -> None:
    """Room comes back by time alone."""
    shared = given(begins("a"))
    shared.happen(Returns("a")).then()
    shared.happen(begins("b")).then("queued b")


def test_who_asks_again_is_told_again() -> None:
    """A message that comes a second time is neither granted nor queued once more."""
    shared = given(begins("a"), begins("b"))
    for asks, answer in ((begins("a"), "a granted"), (begins("b"), "b waiting behind 0 until 11")):
        outcome = shared.happen(asks, when=3).then().then_told(answer)
        assert outcome.verdicts[0].kind == "known"
    shared.happen(begins("c"), begins("c")).then("queued c")


def test_a_wake_up_that_comes_in_vain_comes_again() -> None:
    """Whoever was to be woken is gone, but another waits for longer: the same timer serves, once it is due for it."""
    shared = given(begins("a", 2), begins("b", 2), begins("c", 1), begins("d", 2))
    assert shared.wakes == [at(12)]
    shared.happen(Returns("c"), when=5).then("dropped c")
    assert shared.wakes == [at(12), at(11)]
    shared.elapse(100)
    assert in_words(shared.events)[-1] == "granted d"
    assert shared.wakes == []


def test_time_never_goes_back() -> None:
    """A message whose time is before the last commit's is decided at that one's."""
    shared = given(begins("a", 1, 10), begins("b", 1, 10))
    shared.elapse(12)
    shared.happen(begins("c", 1, 10), skew=-30).then("queued c")
    assert shared.history[-1].time == at(11) == shared.history[-2].time


def test_a_rule_that_is_raised_counts_what_it_knows() -> None:
    """The grants under the smaller rule are in its window as well."""
    shared = Shared.of(begins("a"))
    for second in range(12):
        shared.happen(begins(f"a{second}", 1, 1), when=second).then(f"granted a{second}")
    shared.happen(begins("b", 13, 60)).then("granted b")
    shared.happen(begins("c", 13, 60)).then("queued c").then_told("c waiting behind 0 until 60")


def test_what_is_not_known_any_more_is_taken_to_be_as_late_as_it_can_have_been(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that counts more than was ever counted may have to wait for once; it never lets anybody begin too early."""
    monkeypatch.setattr(limiter, "KEPT", 1)
    shared = Shared.of(begins("a"))
    for second in range(13):
        shared.happen(begins(f"a{second}", 1, 1), when=second)
    assert (len(shared.state.window), shared.state.forgotten // 1_000_000 - round(at(0).timestamp())) == (1, 11)
    shared.happen(begins("b", 13, 60)).then("queued b").then_told("b waiting behind 0 until 71")
    shared.elapse(100)
    assert in_words(shared.events)[-1] == "granted b"


def test_what_is_kept_is_bounded() -> None:
    """However many have begun, as many grants are known as the largest rule counts, or twice that."""
    shared = Shared.of(begins("a"))
    shared.happen(*[begins(f"a{number}", 300, 0.001) for number in range(300)])
    for second in range(1, 5):
        shared.happen(*[begins(f"a{second}-{number}", 300, 0.001) for number in range(300)], when=second)
    assert 300 <= len(shared.state.window) <= 600


def test_who_waits_long_is_told_a_moment_that_is_to_come() -> None:
    """Behind those who can begin soon only in the second window, counted from now if the last grants are long ago."""
    shared = given(begins("a", 1, 10))
    shared.happen(begins("b", 1, 10), begins("c", 1, 10), when=100).then("granted b", "queued c")
    shared.happen(begins("d", 1, 10)).then_told("d waiting behind 1 until 120")


def test_a_limit_decides_only_upon_its_own_key() -> None:
    """Another key, or another kind of entity, is another one's business."""
    shared = given(begins("a"))
    for wrong in (begins("b", key="other"), slot("b")):
        outcome = shared.happen(wrong).then().then_told("b denied wrong_entity")
        assert outcome.verdicts[0].error is not None and outcome.verdicts[0].error.hint
    same = AskToBegin(key="k", max_executions=7, window_ms=3, on_limit="reject")
    assert entity_of(same) == shared.entity


def test_a_line_has_an_end() -> None:
    """`limits.requests_waiting`: more than so many stay where they are, and come again; who does not wait is told at once."""
    with with_limits(requests_waiting=2):
        shared = given(begins("a"), begins("b"), begins("c"))
        assert shared.happen(begins("d")).then().verdicts[0].kind == "later"
        shared.happen(begins("e", reject=True)).then_told("e denied rate_limited")
        assert shared.happen(begins("b")).verdicts[0].kind == "known"
        shared.happen(Returns("b"), begins("d")).then("dropped b", "queued d")


def test_what_a_commit_has_no_room_for_is_done_at_once_after_it() -> None:
    """So many events at most; the wake-up that goes on is due now."""
    with with_limits(events_per_commit=2):
        shared = given(begins("a", 3), begins("b", 3), begins("c", 3), begins("d", 3), begins("e", 3), begins("f", 3))
        shared.timers.clear()
        outcome = shared.happen(Looks(), when=30).then("granted d", "granted e")
        assert outcome.wakes == [at(30)]
        outcome = shared.happen(Looks()).then("granted f")
        assert outcome.wakes == []


def test_a_commit_that_is_full_rejects_nobody_unheard() -> None:
    """Whether there is room for one that does not wait is decided when those before it have been: until then it waits."""
    with with_limits(events_per_commit=3):
        shared = given(begins("a", 4), begins("b", 4), begins("c", 4), begins("d", 4), begins("e", 4), begins("f", 4))
        shared.happen(begins("g", 4), when=2.5).then("queued g")
        outcome = shared.happen(begins("h", 4, reject=True), begins("i", 5, reject=True), when=30)
        outcome.then("granted e", "queued h", "queued i")
        outcome = shared.happen(Looks()).then("granted f", "granted g", "granted h")
        shared.happen(Looks()).then("granted i")
        again = given(begins("a", 2), begins("b", 2), begins("c", 2), begins("d", 2))
        again.happen(begins("e", 2, reject=True), begins("f", 2, reject=True), when=30)
        assert in_words(again.events)[4:] == ["granted c", "queued e", "queued f"]
        again.happen(Looks()).then("granted d", "dropped e: rate_limited", "dropped f: rate_limited")
        assert again.happen(begins("e", 2, reject=True)).then_told("e denied rate_limited").verdicts[0].kind == "known"


def test_whoever_died_before_telling_leaves_all_that_is_needed() -> None:
    """Who began, and when to look again, is told from the state; who waits, when its own message comes again."""
    shared = given(begins("a"), begins("b"))
    shared.happen(begins("c"), crash=True)
    told = everything(shared.state)
    assert told == [Tell("a", Granted(entity=shared.entity, gate="rate_limit")), SetWake(2, at(11))]
    shared.recover()
    assert {"a", "b", "c"} == shared.told.keys()


def test_a_decision_that_leads_to_nothing_is_no_commit() -> None:
    """Nothing to look at, nothing to give back: no event, and the state is as it was."""
    shared = given(begins("a"))
    decision = SharedDecision(shared.fold(), at(50))
    assert decision.due().kind == "done"
    verdict = decision.release("nobody")
    assert (verdict.kind, verdict.effective) == ("done", False)
    decision.settle()
    assert (decision.events, decision.state.n, decision.state.time) == ([], 1, at(1))
