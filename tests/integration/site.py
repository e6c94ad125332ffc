"""A site for tests of the lifecycle: tasks that do as the test says and write down what they did, and shakes in between."""

import asyncio
from collections import Counter, defaultdict
from typing import Any

import esexec
from esexec import Plan, Step
from tests.integration.engine import Engine, until
from tests.server import NatsServer

WAIT_S = 10.0


class Site:
    """`done`: what handlers did, in order, as `build a`, `undo a`. A step whose gate is shut waits in its handler.

    `fails`: how many attempts of a step (or of `undo a`) fail still. `hands`: what the handlers that run now are at.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.hands: set[str] = set()
        self.fails: Counter[str] = Counter()
        self.hopeless: set[str] = set()
        self.gates: dict[str, asyncio.Event] = defaultdict(_open)
        self.calls: list[dict[str, Any]] = []

        @esexec.task(name="build", retry_delay="50ms")
        async def build(ctx: esexec.Context, **more: Any) -> dict[str, Any]:
            self.calls.append({"step": ctx.step, "run": ctx.run, "attempt": ctx.attempt, "vars": dict(ctx.vars)})
            await self.work(ctx.step, f"build {ctx.step}")
            return {"id": f"{ctx.step}-{ctx.run}"}

        @build.compensate(retry_delay="50ms")
        async def demolish(ctx: esexec.Context, id: str | None = None) -> None:
            self.calls.append({"undo": ctx.step, "id": id, "attempt": ctx.attempt})
            await self.work(f"undo {ctx.step}", f"undo {ctx.step}")

        @esexec.task(name="fence", retry_delay="50ms")
        async def fence(ctx: esexec.Context) -> str:
            """Nothing undoes it."""
            await self.work(ctx.step, f"build {ctx.step}")
            return ctx.step

        self.tasks = [build, fence]

    @property
    def order(self) -> list[str]:
        """`done`, each by its first time: a server that is killed may have a handler run twice, though one outcome counts."""
        return list(dict.fromkeys(self.done))

    async def work(self, gate: str, what: str) -> None:
        self.hands.add(gate)
        try:
            await self.gates[gate].wait()
        finally:
            self.hands.discard(gate)
        if gate in self.hopeless:
            raise esexec.ExecutionError(f"{gate} cannot be", code="HOPELESS", retry=False)
        if self.fails[gate]:
            self.fails[gate] -= 1
            raise ConnectionError(f"{gate}: not now")
        self.done.append(what)

    def shut(self, *gates: str) -> None:
        for gate in gates:
            self.gates[gate].clear()

    def open(self, *gates: str) -> None:
        for gate in gates:
            self.gates[gate].set()

    async def at(self, *gates: str) -> None:
        """Handlers have begun these, and wait at their gates."""
        await until(lambda: self.hands >= set(gates))

    def row(self, *steps: str, **settings: Any) -> Plan:
        """Steps in a row."""
        before = [None, *steps]
        made = [Step("build", id=one, depends_on=[other] if other else []) for one, other in zip(steps, before, strict=False)]
        return Plan("row", steps=made, **settings)


def _open() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


class Shaker:
    """Restarts what the test's parameter says, in the middle of a test: `executors`, or the `server`, as after kill -9."""

    def __init__(self, what: str, engine: Engine, server: NatsServer) -> None:
        self.what, self.engine, self.server = what, engine, server

    async def __call__(self) -> None:
        if self.what == "server":
            await asyncio.to_thread(self.server.restart)
            connection = self.engine.client._connection
            assert connection is not None
            await until(lambda: connection.is_connected)
        else:
            count = len(self.engine.executors)
            for executor in self.engine.executors:
                await executor.stop()
            self.engine.executors.clear()
            for _ in range(count):
                await self.engine.executor()


async def phase(handle: esexec.Handle, name: str) -> esexec.ExecutionResult:
    """The execution once it is in this phase (or has this status)."""

    async def reached() -> esexec.ExecutionResult | None:
        shown = await handle.snapshot()
        return shown if name in (shown.current_phase, shown.status) else None

    found: esexec.ExecutionResult = await until(reached)
    return found


async def has(engine: Engine, execution_id: str, kind: str) -> None:
    """An event of this type, perhaps of a step (`task_completed:a`), stands in the history."""

    async def is_there() -> bool:
        return kind in await engine.types(execution_id, steps=":" in kind)

    await until(is_there)
