"""Every verb of the lifecycle as a bare NATS message on `cmd.<id>.<verb>`, with its answer on `reply.<id>.<command id>`."""

import asyncio
from typing import Any

import msgspec
import pytest

from esexec.domain.messages import Answer
from esexec.nats.connection import Msg
from tests.integration.engine import KINDS, Engine, until
from tests.integration.raw import RawClient

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)

PLAN = {
    "name": "raw",
    "steps": [
        {"id": "a", "task": "make", "compensate": "unmake"},
        {"id": "b", "task": "make", "depends_on": ["a"]},
    ],
}
WHEN = {"started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:01Z"}


def said(answer: Answer) -> tuple[str, bool, str | None]:
    return answer.status, answer.effective, answer.error.code if answer.error else None


async def do(raw: RawClient, execution_id: str, outcome: dict[str, Any], **expected: Any) -> dict[str, Any]:
    """As a worker in any language would: take the next dispatch, report what came of it, let it go. Gives the dispatch."""
    message = await raw.pull()
    dispatch: dict[str, Any] = msgspec.json.decode(message.data)
    assert {key: dispatch.get(key, DEFAULTS.get(key)) for key in expected} == expected
    attempt = f"{dispatch.get('run', 1)}-{dispatch.get('attempt', 1)}"
    await raw.report(execution_id, dispatch["step"], attempt, data=outcome)
    await message.respond(b"")
    return dispatch


DEFAULTS = {"attempt": 1, "run": 1, "purpose": "task"}
COMPLETED = {"type": "completed", **WHEN, "output": {"id": 1}}
FAILED = {"type": "failed", "error": {"type": "execution_error", "code": "NO", "message": "no", "retryable": False}}


async def status(engine: Engine, execution_id: str, wanted: str) -> None:
    async def reached() -> bool:
        found = await engine.client.get(execution_id)
        return found is not None and found.status == wanted

    await until(reached)


@everywhere
async def test_a_whole_life_in_bare_messages(engine: Engine, raw: RawClient) -> None:
    """Start, pause, resume, checkpoint, rollback by failure, retry, restore, rollback by command: asked, answered, done."""
    ok = ("accepted", True, None)
    assert said(await raw.ask("e1", "start", plan=PLAN)) == ok
    assert said(await raw.ask("e1", "pause", reason="lunch")) == ok
    assert said(await raw.ask("e1", "pause")) == ("accepted", False, None)
    assert said(await raw.ask("e1", "resume")) == ok
    assert said(await raw.ask("e1", "resume")) == ("accepted", False, None)
    await do(raw, "e1", COMPLETED, step="a", task="make")
    assert said(await raw.ask("e1", "checkpoint", metadata={"why": "test"})) == ok
    await do(raw, "e1", FAILED, step="b")
    undoing = await do(raw, "e1", COMPLETED, step="a", task="unmake", purpose="compensation", attempt=2)
    assert (undoing["params"], undoing["output"]) == ({"id": 1}, {"id": 1})
    await status(engine, "e1", "rolled_back")
    assert said(await raw.ask("e1", "retry")) == ok
    await do(raw, "e1", COMPLETED, step="a", run=2, attempt=1)
    await do(raw, "e1", COMPLETED, step="b", run=2)
    await status(engine, "e1", "completed")
    checkpoint = (await engine.client.get_or_raise("e1")).checkpoints[0]
    assert said(await raw.ask("e1", "restore", checkpoint_id=checkpoint, reason="again")) == ok
    await do(raw, "e1", COMPLETED, step="a", run=3)  # what stood at the checkpoint was undone since
    await do(raw, "e1", COMPLETED, step="b", run=3)
    await status(engine, "e1", "completed")
    assert said(await raw.ask("e1", "rollback", reason="enough")) == ok
    await do(raw, "e1", COMPLETED, step="a", purpose="compensation", run=3, attempt=2)
    await status(engine, "e1", "rolled_back")


@everywhere
async def test_a_fork_and_a_cancel_in_bare_messages(engine: Engine, raw: RawClient) -> None:
    """`as_new` with a name of its own, asked for once more, and the cancel of what it started."""
    assert (await raw.ask("e2", "start", plan=PLAN, config={"enable_rollback": False})).status == "accepted"
    await do(raw, "e2", COMPLETED, step="a")
    await do(raw, "e2", FAILED, step="b")
    await status(engine, "e2", "failed")
    answer = await raw.ask("e2", "retry", as_new=True, new_id="e2-again")
    assert said(answer) == ("accepted", True, None)
    await status(engine, "e2-again", "running")
    for id in ("another", answer.command_id):
        raw.answers.clear()
        repeated = await raw.ask("e2", "retry", id=id, as_new=True, new_id="e2-again")
        assert (said(repeated), repeated.original_id) == (("duplicate", True, None), "e2-again")
    assert said(await raw.ask("e2-again", "cancel")) == ("accepted", True, None)
    await status(engine, "e2-again", "cancelled")
    assert said(await raw.ask("e2-again", "cancel")) == ("accepted", False, None)


@everywhere
async def test_every_refusal_has_a_code_and_a_hint(engine: Engine, raw: RawClient) -> None:
    """A verb that the state does not allow is answered, whatever is asked, and changes nothing."""
    await raw.ask("e3", "start", plan=PLAN)
    running = {
        "retry": ({}, "not_ended"),
        "rollback": ({}, "not_ended"),
        "restore": ({"checkpoint_id": "e3.9"}, "unknown_checkpoint"),
    }
    for verb, (body, code) in running.items():
        answer = await raw.ask("e3", verb, **body)
        assert said(answer) == ("refused", False, code)
        assert answer.error is not None
        assert answer.error.hint
    await raw.ask("e3", "cancel")
    await status(engine, "e3", "cancelled")
    before = await engine.types("e3")
    ended: list[tuple[str, dict[str, Any], str]] = [
        ("pause", {}, "ended"),
        ("resume", {}, "ended"),
        ("checkpoint", {}, "ended"),
        ("rollback", {}, "nothing_to_compensate"),
        ("restore", {"checkpoint_id": "e3.9"}, "unknown_checkpoint"),
        ("retry", {"step": "c"}, "unknown_step"),
        ("retry", {"new_id": "e3b"}, "new_id_without_as_new"),
    ]
    for verb, body, code in ended:
        answer = await raw.ask("e3", verb, **body)
        assert said(answer) == ("refused", False, code)
        assert answer.error is not None
        assert answer.error.hint
    assert await engine.types("e3") == before
    assert await engine.client.get("e3b") is None
    unknown = await asyncio.gather(*(raw.ask("nobody", verb) for verb in ("pause", "resume", "retry", "rollback", "checkpoint")))
    assert {said(answer) for answer in unknown} == {("refused", False, "not_found")}


@everywhere
async def test_the_same_command_twice_is_one_command(engine: Engine, raw: RawClient) -> None:
    """Sent again with its id, each verb is answered again, and stands in the history once."""
    await raw.ask("e4", "start", plan=PLAN)
    for verb in ("pause", "resume", "checkpoint"):
        for _ in range(3):
            raw.answers.clear()
            answer = await raw.ask("e4", verb, id=f"the-{verb}")
            assert said(answer) == ("accepted", True, None), verb
    causes = [cause.id for commit in await engine.client.history("e4") for cause in commit.commands]
    assert [cause for cause in causes if cause.startswith("the-")] == ["the-pause", "the-resume", "the-checkpoint"]


@everywhere
async def test_an_image_in_bare_messages(engine: Engine, raw: RawClient) -> None:
    """A `before` report is answered on `live.<id>.before`; a second one gets the image of the first."""
    heard: list[dict[str, Any]] = []

    async def on_image(message: Msg) -> None:
        heard.append(msgspec.json.decode(message.data))

    await raw.connection.subscribe(engine.subjects.live("e5", "before"), on_image)
    await raw.ask("e5", "start", plan=PLAN)
    message = await raw.pull()
    for image in ("first", "second"):
        count = len(heard)
        await raw.report("e5", "a", data={"type": "before", "image": image})
        await until(lambda count=count: len(heard) > count)
    assert [one["image"] for one in heard] == ["first", "first"]
    assert {key: heard[0][key] for key in ("execution_id", "step", "attempt")} == {
        "execution_id": "e5",
        "step": "a",
        "attempt": 1,
    }
    await raw.report("e5", "a", data={"type": "failed", "error": {"type": "execution_error", "code": "X", "message": "x"}})
    await message.respond(b"")

    async def again() -> bool:
        return (await engine.client.get_or_raise("e5")).step("a").attempt == 2

    await until(again)
    retried = msgspec.json.decode((await raw.pull()).data)
    assert (retried["attempt"], retried["before"]) == (2, "first")


async def test_a_strategy_in_any_language(engine: Engine, raw: RawClient) -> None:
    """A question arrives as a dispatch with purpose `recovery`; the answer is the output of a completed report."""
    body = {"strategy": {"id": "ask", "queue": "default"}}
    assert said(await raw.ask("_settings", "add_strategy", **body)) == ("accepted", True, None)
    await until(lambda: all(it._desk.surroundings.strategies for it in engine.executors))
    await raw.ask("e6", "start", plan=PLAN)
    await do(raw, "e6", FAILED, step="a")
    advice = {"success": True, "action": "retry", "message": "once more", "new_state": {"variables": {"key": "found"}}}
    asked = await do(raw, "e6", {"type": "completed", **WHEN, "output": advice}, purpose="recovery", task="ask", attempt=2)
    assert (asked["recovery"]["error"]["code"], asked["recovery"]["failed_attempt"]) == ("NO", 1)
    assert (await do(raw, "e6", COMPLETED, step="a", attempt=3))["vars"] == {"key": "found"}
