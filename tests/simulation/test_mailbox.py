"""What once went wrong between an executor's cache, its commits and their effects, told step by step."""

from collections.abc import Callable, Iterator
from random import Random

import pytest

from esexec.domain import commands as c
from esexec.domain import reports as r
from esexec.executor import mailbox
from tests.given import start, step
from tests.simulation import checker
from tests.simulation.server import Message, Operation
from tests.simulation.story import Story, small_decisions
from tests.simulation.workers import Attempt
from tests.simulation.world import Node, World


@pytest.fixture
def world() -> Iterator[World]:
    world = World([10, 10])
    yield world
    world.close()


def finish(node: Node, *names: str) -> None:
    """Let the operations of these names arrive and be answered, and what follows from them."""
    node.world.finish(node, *names)


def pending(node: Node, name: str) -> Operation:
    """The one operation of that name."""
    (found,) = [one for one in node.operations if one.name.startswith(name)]
    return found


def advance_once(node: Node, name: str) -> None:
    """One operation arrives and is answered."""
    one = pending(node, name)
    node.world.advance(node, one)
    node.world.advance(node, one)


def begun(world: World, *steps: str, room: int = 10) -> Node:
    """`e1` with these parallel steps, started by the first executor, which holds it in its cache."""
    node = world.nodes[0]
    command = start(*steps, plan_fields={"parallel": True}, config={"parallel_execution_limit": room, "jitter": 0.0})
    world.deliver(world.send("e1", "start", command), node=node)
    finish(node)
    return node


def quiet(world: World) -> Story:
    """The rest of the story; what was dispatched twice in this one was meant."""
    story = Story(world)
    story.quiet = False
    return story


def completed(world: World, step: str) -> Message:
    world.hand_out(Attempt("e1", step))
    world.work(Attempt("e1", step), "ok")
    return world.messages[-1]


def test_a_redelivery_is_not_let_go_before_the_effects_stand(world: World) -> None:
    """The same message delivered again while its commit's effects are under way is acknowledged together with it."""
    node = world.nodes[0]
    message = world.send("e1", "start", start("a"))
    world.deliver(message, node=node)
    finish(node, "append")
    world.expire(message)
    world.deliver(message, node=node)
    finish(node, "read")
    assert not message.acked
    world.crash(node)
    world.zombies.clear()
    quiet(world).end()


def test_a_continue_that_a_stale_cache_sees_nothing_in_is_not_lost(world: World) -> None:
    """An executor whose cache is older than the cut decision asks the leader before it lets the continuation go."""
    node, other = world.nodes
    world.deliver(world.send("e1", "start", start(*"abcdefgh")), node=node)
    finish(node)
    world.deliver(world.send("e1", "nudge", r.Nudge()), node=other)
    finish(other)
    with small_decisions(4):
        world.deliver(world.send("e1", "cancel", c.CancelExecution(id="c9")), node=node)
        finish(node)
        (message,) = [one for one in world.available if one.verb == "continue"]
        world.deliver(message, node=other)
        finish(other)
        assert "continue/2" in checker.applied_commands(world.histories())
        quiet(world).end()


def test_a_continue_repeats_the_effects_of_the_commit_it_led_to(world: World) -> None:
    """Killed between append and effects, the executor's successor dispatches what the continued decision scheduled."""
    with small_decisions(4):
        node = world.nodes[0]
        command = start(*"abcd", plan_fields={"parallel": True}, config={"parallel_execution_limit": 4})
        world.deliver(world.send("e1", "start", command), node=node)
        finish(node)
        (message,) = world.available
        assert message.content == r.Continue(1)
        world.deliver(message, node=node)
        finish(node, "load", "append")
        world.crash(node)
        world.zombies.clear()
        world.deliver(message, node=world.nodes[1])
        finish(world.nodes[1])
        assert sorted(step for _, step, *_ in world.queue.waiting) == list("abcd")
        assert message.acked
        quiet(world).end()


def test_messages_that_come_while_an_answer_is_sent_wait_their_turn(world: World) -> None:
    """A call to the outside in the middle of a decision lets nobody begin another decision on the same state."""
    bad, good = world.send("e1", "start", start("a", "a", id="c1")), world.send("e1", "start", start("b", id="c2"))
    world.deliver(bad, good, world.send("e1", "cancel", c.CancelExecution(id="c3")), node=world.nodes[0])
    quiet(world).end()
    commits = world.histories()["e1"]
    assert not checker.broken_chains({"e1": commits})
    assert {"c2", "c3"} <= checker.applied_commands({"e1": commits})


def test_a_refused_append_takes_all_its_messages_back(world: World) -> None:
    """Two executors decide at once; the loser decides its whole batch again on what the winner wrote."""
    node, other = begun(world, "a", "b", "c"), world.nodes[1]
    world.deliver(world.send("e1", "nudge", r.Nudge()), node=other)
    finish(other)
    first, second, third = (completed(world, step) for step in "abc")
    world.deliver(first, node=node)
    world.deliver(second, third, node=other)
    finish(node, "append")
    finish(other)
    finish(node)
    assert first.acked
    assert second.acked
    assert third.acked
    events = [event["type"] for event in checker.events_of(world.histories()["e1"])]
    assert events.count("task_completed") == 3
    quiet(world).end()


def test_an_unknown_outcome_is_resolved_by_the_same_bytes(world: World) -> None:
    """An append that arrived twice because its acknowledgement was lost is still the executor's own."""
    node = world.nodes[0]
    world.deliver(world.send("e1", "start", start("a")), node=node)
    append = pending(node, "append")
    append.arrive()
    append.arrive()
    assert append.result == 1
    finish(node)
    assert world.queue.dispatched == {Attempt("e1", "a"): 1}


@pytest.mark.parametrize("size", [0, 1, 10])
def test_a_nudge_repeats_what_was_lost(size: int) -> None:
    """Whatever was thrown away outside the log, a nudge brings it back; and the nudge itself is let go."""
    world = World([size])
    node = begun(world, "a", "b")
    world.queue.waiting.clear()
    message = world.send("e1", "nudge", r.Nudge())
    world.deliver(message, node=node)
    finish(node)
    assert message.acked
    assert [step for _, step, *_ in world.queue.waiting] == ["a", "b"]
    quiet(world).end()
    world.close()


def test_a_timer_that_came_too_late_repeats_nothing(world: World) -> None:
    """The commit that closed a timer is owed to what it was decided upon: its effects are not repeated for the timer's sake."""
    node, other = world.nodes
    config = {"queue_timeout_ms": 1000}
    world.deliver(world.send("e1", "start", start("a", step("b", "a"), config=config)), node=node)
    finish(node)
    ((timer, _),) = world.timers.items()
    world.deliver(completed(world, "a"), node=node)
    finish(node)
    report = completed(world, "b")
    world.fire(timer)
    world.deliver(world.messages[-1], node=node)
    advance_once(node, "read e1 3")
    world.deliver(report, node=other)
    finish(other)
    finish(node)
    assert world.queue.dispatched == {Attempt("e1", "a"): 1, Attempt("e1", "b"): 1}
    Story(world).end()


def test_what_a_pause_takes_back_behind_a_resume_is_handed_out_again(world: World) -> None:
    """One executor is slow to take back what waits, another has done so for it, and resumed meanwhile: nothing is lost."""
    node, other = begun(world, "a"), world.nodes[1]
    pause = world.send("e1", "pause", c.PauseExecution(id="c2"))
    world.deliver(pause, node=node)
    finish(node, "turn", "append")
    advance_once(node, "take back")
    advance_once(node, "deliveries")
    world.expire(pause)
    world.deliver(pause, node=other)
    finish(other)
    world.deliver(world.messages[-1], node=other)
    finish(other)
    world.deliver(world.send("e1", "resume", c.ResumeExecution(id="c3")), node=other)
    finish(other)
    assert world.queue.waiting
    finish(node)
    assert world.queue.waiting
    Story(world).end()


def overdue(world: World) -> Attempt:
    """The first executor has decided that the one attempt of `e1` waited too long, and not done anything about it yet."""
    node = world.nodes[0]
    world.deliver(world.send("e1", "start", start("a", config={"queue_timeout_ms": 1000, "max_retries": 0})), node=node)
    finish(node)
    ((timer, _),) = world.timers.items()
    world.fire(timer)
    world.deliver(world.messages[-1], node=node)
    finish(node, "append")
    assert checker.events_of(world.histories()["e1"])[-1]["type"] == "task_overdue"
    return Attempt("e1", "a")


def test_what_another_executor_closed_meanwhile_is_not_handed_out_again(world: World) -> None:
    """What is neither in TASKS nor reported may have been decided upon elsewhere: the log is asked before it is put back."""
    attempt, (node, other) = overdue(world), world.nodes
    world.deliver(completed(world, "a"), node=other)
    finish(other)
    finish(node)
    assert world.queue.dispatched == {attempt: 1}
    quiet(world).end()


def test_what_its_worker_finished_is_not_put_back(world: World) -> None:
    """A delete that hits nothing says that the attempt is dealt with: it was not this executor that took it from its worker."""
    attempt, (node, _) = overdue(world), world.nodes
    advance_once(node, "take back")
    advance_once(node, "deliveries")
    completed(world, "a")
    finish(node)
    assert world.queue.dispatched == {attempt: 1}
    quiet(world).end()


def test_what_is_overdue_as_the_deadline_passes_is_taken_back_once(world: World) -> None:
    """Two take-backs of one attempt would each find the other's work: one proves that nobody had it, the other put it back."""
    node = world.nodes[0]
    config = {"queue_timeout_ms": 1000, "execution_timeout_ms": 1000}
    world.deliver(world.send("e1", "start", start("a", config=config)), node=node)
    finish(node)
    for timer in list(world.timers):
        world.fire(timer)
    world.deliver(*world.messages, node=node)
    finish(node)
    assert not world.queue.waiting
    assert world.queue.dispatched == {Attempt("e1", "a"): 0}
    quiet(world).end()


def test_what_a_pause_holds_is_not_abandoned_by_a_cancel(world: World) -> None:
    """Nobody has it: even where the grace is over before all of it could be settled, none of it is of unknown outcome."""
    with small_decisions(2):
        node = begun(world, "a", "b")
        world.deliver(world.send("e1", "pause", c.PauseExecution(id="c2")), node=node)
        world.rest()
        world.deliver(world.send("e1", "cancel", c.CancelExecution(id="c3")), node=node)
        finish(node)
        ((grace, _),) = world.timers.items()
        world.fire(grace)
        world.deliver(world.messages[-1], node=node)
        world.drain()
    events = checker.events_of(world.histories()["e1"])
    assert [event.get("ended") for event in events if event["type"] == "task_cancelled"] == [None, None]
    assert "abandoned" not in events[-1]
    Story(world).end()


def test_what_an_old_pause_took_back_is_not_taken_for_untouched(world: World) -> None:
    """The proof of one pause says nothing once the attempt was handed out again: a cancel after that waits for whoever has it."""
    node, attempt = begun(world, "a"), Attempt("e1", "a")
    world.deliver(world.send("e1", "pause", c.PauseExecution(id="c2")), node=node)
    finish(node)
    proof = world.messages[-1]
    world.deliver(world.send("e1", "resume", c.ResumeExecution(id="c3")), node=node)
    finish(node)
    world.hand_out(attempt)
    world.deliver(world.send("e1", "cancel", c.CancelExecution(id="c4")), node=node)
    finish(node)
    world.deliver(proof, node=node)
    finish(node)
    assert isinstance(proof.content, r.Withdrawn)
    assert proof.acked
    assert [event["type"] for event in checker.events_of(world.histories()["e1"])].count("task_cancelled") == 0
    Story(world).end()


def test_a_report_of_nobodys_attempt_is_parked_in_the_end(world: World) -> None:
    """A report is never acknowledged on absence: it is looked for again and again, then parked with an alert."""
    begun(world, "a")
    message = world.send("e1", "report", r.Withdrawn(), "nobody", "1-1")
    quiet(world).end()
    assert [(dead, reason.code) for dead, reason in world.dead] == [(message, "unknown_attempt")]
    assert message.deliveries == 20


def test_a_command_for_nobody_is_delayed_before_it_is_refused(world: World) -> None:
    """It may have overtaken the start: two delays, then `not_found`."""
    message = world.send("e1", "cancel", c.CancelExecution(id="c1"))
    world.drain()
    assert message.deliveries == 3
    assert [(answer.status, answer.error and answer.error.code) for answer in world.answers["c1"]] == [("refused", "not_found")]


def test_a_poisonous_message_is_buried_and_the_others_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of the core is the fault of one message only; whoever waits for its answer is told."""
    decide_control = mailbox.decide_control

    def fails(*args: object) -> object:
        if args[1].id == "c13":  # type: ignore[attr-defined]
            raise KeyError("poison")
        return decide_control(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(mailbox, "decide_control", fails)
    node = begun(world, "a", "b")
    report = completed(world, "a")
    poison = world.send("e1", "cancel", c.CancelExecution(id="c13"))
    world.deliver(report, poison, completed(world, "b"), node=node)
    world.drain()
    assert [dead for dead, _ in world.dead] == [poison]
    assert [answer.status for answer in world.answers["c13"]] == ["refused"]
    assert checker.events_of(world.histories()["e1"])[-1]["type"] == "execution_completed"


def damaged(change: Callable[[bytes], bytes]) -> World:
    world = World([0])
    begun(world, "a", "b")
    history = world.log.histories["e1"]
    completed(world, "a")
    world.deliver(*world.available)
    finish(world.nodes[0])
    history = world.log.histories["e1"]
    history[0] = history[0]._replace(data=change(history[0].data))
    return world


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data.replace(b'"step":"b"', b'"step":"x"'),
        lambda data: data.replace(b'"n":1', b'"n":2'),
        lambda _: b"",
    ],
)
def test_a_broken_history_halts_its_execution_and_no_other(change: Callable[[bytes], bytes]) -> None:
    """Its messages are parked with the reason; another execution runs on."""
    world = damaged(change)
    message = completed(world, "b")
    world.send("e2", "start", start("a", id="c5"))
    world.drain()
    assert [(dead, reason.code) for dead, reason in world.dead] == [(message, "corrupt_history")]
    assert checker.events_of(world.histories()["e2"])[-1]["type"] in checker.ENDS
    world.close()


def test_the_cache_keeps_what_was_used_last() -> None:
    """An executor holds as many idle executions as it may, forgets the oldest first, and ended ones at once."""
    world = World([2])
    node = world.nodes[0]
    for name in ("e1", "e2", "e3"):
        world.deliver(world.send(name, "start", start("a", id=f"c{name}")), node=node)
        finish(node)
    assert list(node.desk._mailboxes) == ["e2", "e3"]
    world.hand_out(Attempt("e2", "a"))
    world.work(Attempt("e2", "a"), "ok")
    world.deliver(*world.available, node=node)
    finish(node)
    assert list(node.desk._mailboxes) == ["e3"]
    world.random = Random(1)
    quiet(world).end()
    assert list(node.desk._mailboxes) == []
    world.close()


def test_a_wish_behind_one_that_is_doubted_waits_until_that_is_certain(world: World) -> None:
    """A resume that finds no pause, in a history that lacks its last commit, and a pause behind it: the pause is what remains."""
    node, other = begun(world, "a"), world.nodes[1]
    world.nodes[0] = node = Node(world, "x2", 0)
    world.deliver(world.send("e1", "pause", c.PauseExecution(id="c2")), node=other)
    finish(other)
    world.behind = 1
    world.deliver(world.send("e1", "resume", c.ResumeExecution(id="c3")), node=node)
    world.deliver(world.send("e1", "pause", c.PauseExecution(id="c4")), node=node)
    finish(node, "turn")
    finish(node, "load")
    world.behind = 0
    finish(node, "append", "load", "read e1 3")
    while node.operations or world.loop.sleepers:
        finish(node)
        if world.loop.sleepers:
            world.wake()
    world.auditor.look(world.log.histories)
    assert world.auditor.law("e1").paused
    assert [id for _, id, *_ in world.auditor.law("e1").causes] == ["c1", "c2", "c3", "c4"]
    Story(world).end()


def test_what_was_judged_within_a_commit_is_not_judged_again_behind_it(world: World) -> None:
    """Pause, pause and cancel in one commit: the second pause had nothing to change, and is not too late."""
    node = begun(world, "a", "b")
    world.deliver(world.send("e1", "pause", c.PauseExecution(id="c2")), node=node)
    world.deliver(world.send("e1", "pause", c.PauseExecution(id="c3")), node=node)
    world.deliver(world.send("e1", "cancel", c.CancelExecution(id="c4")), node=node)
    world.deliver(completed(world, "a"), node=node)
    finish(node, "turn")
    finish(node, "append", "timer", "take back", "deliveries", "delete", "withdrawn")
    world.deliver(world.messages[-1], node=node)
    finish(node, "append")
    world.rest()
    (told,) = world.answers["c3"]
    assert (told.status, told.effective) == ("accepted", False)
    Story(world).end()


def snatched(world: World) -> Attempt:
    """The first executor deletes a dispatch in the very moment in which a worker gets it; `e1` is paused."""
    node, attempt = begun(world, "a"), Attempt("e1", "a")
    world.deliver(world.send("e1", "pause", c.PauseExecution(id="c2")), node=node)
    finish(node, "turn", "append", "take back")
    advance_once(node, "deliveries")
    world.hand_out(attempt)
    finish(node)
    assert attempt in world.queue.withdrawn
    return attempt


def test_what_its_worker_ends_while_it_is_asked_for_is_not_handed_out_again(world: World) -> None:
    """A resume finds it not in TASKS, not in INBOX and open in the log; just then its worker reports, and so nobody has it."""
    node, attempt = world.nodes[0], snatched(world)
    world.deliver(world.send("e1", "resume", c.ResumeExecution(id="c3")), node=node)
    finish(node, "turn", "append", "number", "look for", "read")
    assert pending(node, "who has")
    world.work(attempt, "ok")
    finish(node)
    assert not world.queue.waiting
    Story(world).end()


def test_a_worker_that_is_lost_after_its_dispatch_was_deleted_is_found_out(world: World) -> None:
    """While it lives nobody else gets the attempt, however often it is looked for; then it is handed out again."""
    node, attempt, look = world.nodes[0], snatched(world), ("e1", r.LOOK)
    world.deliver(world.send("e1", "resume", c.ResumeExecution(id="c3")), node=node)
    finish(node)
    for lost in (False, False, True):
        if lost:
            world.queue.lose(attempt)
        world.fire(look)
        world.deliver(world.messages[-1], node=node)
        finish(node)
        assert world.queue.waiting == [attempt] * lost
    assert not world.queue.at_once
    quiet(world).end()


def test_what_an_executor_did_not_live_to_take_back_is_gone_with_the_grace(world: World) -> None:
    """It died between the timer of the grace and its taking back: the end of the grace takes it back, and no worker gets it."""
    node, attempt = begun(world, "a"), Attempt("e1", "a")
    cancel = world.send("e1", "cancel", c.CancelExecution(id="c2"))
    world.deliver(cancel, node=node)
    finish(node, "turn", "append", "timer")
    node.operations.clear()
    world.crash(node)
    assert world.queue.waiting == [attempt]
    ((grace, _),) = world.timers.items()
    world.fire(grace)
    other = world.nodes[1]
    world.deliver(world.messages[-1], node=other)
    finish(other)
    assert checker.events_of(world.histories()["e1"])[-1]["type"] == "execution_cancelled"
    assert not world.queue.waiting
    quiet(world).end()
