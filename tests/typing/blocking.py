"""The blocking client has the types of the other. Never run: `mypy --strict` checks it."""

from collections.abc import Iterator
from typing import assert_type

import esexec


@esexec.task
async def count(name: str) -> int:
    return len(name)


def on_a_client() -> None:
    with esexec.connect_sync("nats://127.0.0.1:4222", namespace="n", user="u", password="p") as client:
        assert_type(client, esexec.SyncClient)
        assert_type(client.run(count, {"name": "n"}), int)
        handle = client.start(count, {"name": "n"}, priority=8)
        assert_type(handle, esexec.SyncHandle[int])
        assert_type(handle.result(), int)
        assert_type(client.monitor(handle.id), Iterator[esexec.ExecutionUpdate])
        assert_type(client.map(count, [{"name": "n"}]), list[int])
        assert_type(client.map(count, [{"name": "n"}], return_errors=True), list[esexec.Ok[int] | esexec.Err])
        assert_type(client.gather([handle]), list[int])
        assert_type(client.chain([count, "save"]), esexec.ChainResult)
        assert_type(client.closure(count)({"name": "n"}), int)
        assert_type(client.executions.status(handle.id), esexec.ExecutionStatus)
        with client.resources.hold({"gpu": 1}) as held:
            assert_type(held, list[esexec.Resource])
        with client.start(count) as counting:
            assert_type(counting, esexec.SyncHandle[int])
        client.start("count", prioritty=1)  # type: ignore[call-arg]
