"""What a start gives, by what is started. Never run: `mypy --strict` checks it."""

from dataclasses import dataclass
from typing import Any, assert_type

import esexec


@dataclass
class Facility:
    name: str


@esexec.task
async def create(name: str) -> Facility:
    return Facility(name)


@esexec.task
def count(name: str) -> int:
    return len(name)


@esexec.task
async def ordered(name: str) -> esexec.Ok[Facility] | esexec.Err:
    return esexec.Ok(Facility(name))


@esexec.task
def counted(name: str) -> esexec.Ok[int]:
    return esexec.Ok(len(name))


def named(what: esexec.Startable) -> esexec.Startable:
    return what


async def on_a_client(client: esexec.Client, plan: esexec.Plan) -> None:
    assert_type(await client.run(create, {"name": "n"}), Facility)
    assert_type(await client.run(count, {"name": "n"}), int)
    assert_type(await client.run("create", {"name": "n"}), Any)
    assert_type(await client.run(ordered, {"name": "n"}), Facility)
    assert_type(await client.run(counted, {"name": "n"}), int)
    handle = await client.start(create, {"name": "n"})
    assert_type(handle, esexec.Handle[Facility])
    assert_type(await handle.result(), Facility)
    assert_type(await client.start(plan), esexec.Handle[Any])
    async with client.start(count, {"name": "n"}) as counting:
        assert_type(await counting.result(), int)
    assert_type(await client.try_run(count, {"name": "n"}), esexec.Ok[int] | esexec.Err)
    assert_type(await client.map(count, [{"name": "n"}]), list[int])
    assert_type(await client.map(count, [{"name": "n"}], return_errors=True), list[esexec.Ok[int] | esexec.Err])
    assert_type(await client.gather([handle]), list[Facility])
    assert_type(await client.closure(count)({"name": "n"}), int)
    assert_type(await client.async_closure(create)({"name": "n"}), esexec.Handle[Facility])
    kept: esexec.Handle = await client.start("create")
    assert_type(await kept.result(), Any)
    await client.start(create, prioritty=1)  # type: ignore[call-arg]
    await client.start(7)  # type: ignore[arg-type]
