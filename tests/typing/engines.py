"""An engine of one's own, and hooks. Never run: `mypy --strict` checks it."""

from collections.abc import AsyncIterator
from typing import Any, assert_type

import esexec


class Facilities(esexec.Engine):
    async def create_facility(self, name: str) -> esexec.ExecutionResult:
        return await self.execute("create_facility", {"name": name}, priority=8, wait_timeout=30)


async def on_an_engine() -> None:
    async with Facilities("nats://127.0.0.1:4222", namespace="n", owner="ada", user="u", password="p") as engine:
        assert_type(engine, Facilities)
        assert_type(await engine.create_facility("x"), esexec.ExecutionResult)
        handle = await engine.start("create_facility", {"name": "x"}, max_retries=1)
        assert_type(handle, esexec.Handle)
        assert_type(engine.monitor(handle.id), AsyncIterator[esexec.ExecutionUpdate])
        assert_type(await engine.get_result(handle.id), esexec.ExecutionResult | None)
        await engine.start("create_facility", max_retires=1)  # type: ignore[call-arg]
        assert_type(Facilities.of(engine.client), Facilities)
    esexec.Engine(namspace="n")  # type: ignore[call-arg]


def count(event: str, measurements: dict[str, Any], metadata: dict[str, Any], config: dict[str, int]) -> None:
    config[event] = config.get(event, 0) + 1


def on_hooks() -> None:
    esexec.telemetry.attach("count", ["exec.start", "exec.stop"], count, {})
    esexec.telemetry.attach("count", "exec.exception", lambda event, measurements, metadata, config: print(event))
    esexec.telemetry.attach("few", "exec.stop", lambda event: None)  # type: ignore[misc, arg-type]
    assert_type(esexec.telemetry.detach("count"), bool)
    esexec.telemetry.execute("my_app.sent", {"size": 1}, {"user": "u"})
