"""`raw`: an executor, a worker and a client that replay a script. They know which message follows which, and nothing else.

No message is decoded but the publish acknowledgements, whose sequence the next commit's compare-and-set needs.
"""

import asyncio
import itertools
import os
import time
from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.script import Script, Turn
from benchmarks.wire import Form, Publisher, Puller, connect, on_every

_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
_STREAM = "ESEXEC_default_"
_PARTITIONS = 16
_IN_HAND = 500


class _Turn:
    """A turn, ready to be filled in."""

    __slots__ = ("commit", "dispatches", "is_last", "needs")

    def __init__(self, turn: Turn, is_last: bool) -> None:
        self.needs, self.is_last = turn.needs, is_last
        self.commit = Form(turn.commit)
        self.dispatches = [Form(dispatch) for dispatch in turn.dispatches]


class _Flow:
    """One execution under way: how far it is, and who waits for an acknowledgement."""

    __slots__ = ("acked", "appending", "arrived", "effects_left", "position", "turn")

    def __init__(self) -> None:
        self.turn = self.acked = self.position = self.effects_left = 0
        self.appending = False
        self.arrived: list[str] = []


class RawExecutor:
    """Commits and dispatches as the script says."""

    def __init__(self, client: Client, script: Script) -> None:
        self._client = client
        last = len(script.turns)
        self._turns = [_Turn(turn, n == last) for n, turn in enumerate(script.turns, 1)]
        self._flows: dict[str, _Flow] = {}

    async def start(self) -> None:
        self._publisher = await Publisher(self._client).start()
        names = [f"p{partition}" for partition in range(_PARTITIONS)]
        consumers = [(f"{_STREAM}{stream}", name, _IN_HAND) for stream in ("COMMANDS", "INBOX") for name in names]
        await Puller(self._client, self._on_message).start(consumers)

    async def _on_message(self, message: Msg) -> None:
        execution = message.subject.split(".", 5)[4]
        flow = self._flows.get(execution)
        if flow is None:
            flow = self._flows[execution] = _Flow()
        flow.arrived.append(message.reply)
        if not flow.appending:
            await self._go_on(execution, flow)

    async def _go_on(self, execution: str, flow: _Flow) -> None:
        turn = self._turns[flow.turn]
        if len(flow.arrived) < turn.needs:
            return
        flow.appending = True
        headers = turn.commit.fill_headers(execution)
        headers[_SEQUENCE] = str(flow.position)
        await self._publisher.send(*turn.commit.fill(execution), headers, partial(self._stored, execution, flow, turn))

    async def _stored(self, execution: str, flow: _Flow, turn: _Turn, sequence: int) -> None:
        flow.position = sequence
        flow.turn += 1
        if not turn.dispatches:
            await self._settled(execution, flow, turn)
            return
        flow.effects_left = len(turn.dispatches)
        dispatched = partial(self._dispatched, execution, flow, turn)
        for form in turn.dispatches:
            await self._publisher.send(*form.fill(execution), form.fill_headers(execution), dispatched)

    async def _dispatched(self, execution: str, flow: _Flow, turn: _Turn, sequence: int) -> None:
        flow.effects_left -= 1
        if not flow.effects_left:
            await self._settled(execution, flow, turn)

    async def _settled(self, execution: str, flow: _Flow, turn: _Turn) -> None:
        for reply in flow.arrived[flow.acked : turn.needs]:
            await self._client.publish(reply)
        flow.acked = turn.needs
        flow.appending = False
        if turn.is_last:
            del self._flows[execution]
        else:
            await self._go_on(execution, flow)


class RawWorker:
    """Reports as the script says, then acknowledges."""

    def __init__(self, client: Client, script: Script, slots: int) -> None:
        self._client, self._slots = client, slots
        self._reports = {step: Form(report) for step, report in script.reports.items()}
        self.stamps: dict[str, int] = {}

    async def start(self) -> None:
        self._publisher = await Publisher(self._client).start()
        await Puller(self._client, self._on_message).start([(f"{_STREAM}TASKS", "default_p5", self._slots)])

    async def _on_message(self, message: Msg) -> None:
        execution, step, _ = message.subject.rsplit(".", 3)[1:]
        self.stamps[execution] = time.monotonic_ns()
        await self._publisher.send(*self._reports[step].fill(execution), None, partial(self._stored, message.reply))

    async def _stored(self, reply: str, sequence: int) -> None:
        await self._client.publish(reply)


class RawClient:
    """Starts executions as the script says, and waits for the last commit of each."""

    def __init__(self, client: Client, script: Script) -> None:
        self._client = client
        self._start, self._last = Form(script.start), str(len(script.turns))
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._ids = itertools.count()
        self._prefix = os.urandom(8).hex()

    async def start(self) -> None:
        self._publisher = await Publisher(self._client).start()
        await on_every(self._client, "esexec.default.commit.*.*", self._on_commit)
        await self._client.flush()

    async def _on_commit(self, message: Msg) -> None:
        _, _, _, execution, n = message.subject.split(".")
        if n == self._last and execution in self._waiting:
            self._waiting.pop(execution).set_result(None)

    async def run(self) -> tuple[str, int]:
        """One execution; returns its id and when it was submitted, once it has ended."""
        execution = f"{self._prefix}{next(self._ids):016x}"
        done = self._waiting[execution] = asyncio.get_running_loop().create_future()
        submitted = time.monotonic_ns()
        await self._publisher.send(*self._start.fill(execution), None, None)
        await done
        return execution, submitted


async def raw_client(url: str, script: Script) -> RawClient:
    client = RawClient(await connect(url), script)
    await client.start()
    return client


async def raw_executor(url: str, script: Script) -> RawExecutor:
    executor = RawExecutor(await connect(url), script)
    await executor.start()
    return executor


async def raw_worker(url: str, script: Script, slots: int) -> RawWorker:
    worker = RawWorker(await connect(url), script, slots)
    await worker.start()
    return worker
