"""Records what an execution of the engine publishes, and makes a script of it."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import nats
from nats.aio.msg import Msg

from benchmarks.script import MARK, Script, Template, Turn

PREFIX = "esexec.default"
_LATEST_S = 10.0
_LOOK_AGAIN_S = 0.05


class _Cause(msgspec.Struct):
    id: str


class _Event(msgspec.Struct):
    type: str
    step: str = ""


class _Commit(msgspec.Struct):
    commands: list[_Cause]
    events: list[_Event]


async def capture(url: str, run: Callable[[], Awaitable[str]]) -> Script:
    """The messages of the one execution that `run` starts; it returns the id when the execution has ended.

    Raises RuntimeError if they are not heard.
    """
    client = await nats.connect(url)
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    for kind in ("cmd", "in", "log", "task"):
        await client.subscribe(f"{PREFIX}.{kind}.>", cb=hear)
    await client.flush()
    execution = await run()
    await client.flush()
    try:
        async with asyncio.timeout(_LATEST_S):
            while not _is_whole(execution, heard):  # each subscription has a task of its own, which may be behind
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError:
        raise RuntimeError(f"of {execution} only this was heard: {[message.subject for message in heard]}") from None
    await client.close()
    return script_of(execution, heard)


def _is_whole(execution: str, heard: list[Msg]) -> bool:
    """Whether its start, its end, and the dispatch and the outcome of each attempt between were heard."""
    by_subject = {message.subject: message.data for message in heard}
    types: list[str] = []
    n = 0
    while (data := by_subject.get(f"{PREFIX}.log.{execution}.{n + 1}")) is not None:
        types += [event.type for event in msgspec.json.decode(data, type=_Commit).events]
        n += 1
    attempts = types.count("task_scheduled")
    kinds = [subject.split(".")[2] for subject in by_subject]
    return (
        f"{PREFIX}.cmd.{execution}.start" in by_subject
        and "execution_completed" in types
        and kinds.count("task") == kinds.count("in") == attempts
    )


def script_of(execution: str, messages: list[Msg]) -> Script:
    """The script of an execution from its messages. Only plain ones are understood: nothing but reports may have come in."""
    by_subject = {message.subject.replace(execution, MARK): _template(execution, message) for message in messages}
    dispatches: dict[str, Template] = {}
    reports: dict[str, Template] = {}
    for subject, template in by_subject.items():
        tokens = subject.split(".")
        if tokens[2] == "task":
            dispatches[tokens[-2]] = template
        elif tokens[2] == "in":
            assert tokens[4] == "report", f"not a plain execution: {subject}"
            reports[tokens[-2]] = template
    turns: list[Turn] = []
    needs = 0
    while (found := by_subject.get(f"{PREFIX}.log.{MARK}.{len(turns) + 1}")) is not None:
        commit = msgspec.json.decode(found.data.encode(), type=_Commit)
        needs += len(commit.commands)
        steps = [event.step for event in commit.events if event.type == "task_scheduled"]
        turns.append(Turn(needs, found, [dispatches[step] for step in steps]))
    return Script(by_subject[f"{PREFIX}.cmd.{MARK}.start"], turns, reports)


def _template(execution: str, message: Msg) -> Template:
    headers = {name: value.replace(execution, MARK) for name, value in (message.headers or {}).items()}
    return Template(message.subject.replace(execution, MARK), message.data.decode().replace(execution, MARK), headers)
