"""A client and a worker that are not Python, and know nothing of esexec but the page of its protocol: examples/node."""

import asyncio
import os
import re
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from esexec.domain.messages import CancelSignal, WhoHas
from esexec.nats.connection import Connection
from esexec.nats.streams import ensure_lane, ensure_streams
from tests.integration.engine import Engine, until
from tests.integration.told import Told
from tests.node import NODE, ROOT, installed

QUEUE = "parcels"
LEASE_MS = 900
"""Short, so that a lost worker is noticed within a test."""
pytestmark = pytest.mark.timeout(300)  # the first one installs what the others need
Run = Callable[..., Awaitable[Process]]


@pytest.fixture
async def told(connection: Connection, namespace: str) -> AsyncIterator[Told]:
    """Whatever anybody publishes during the test is a message of the protocol."""
    told = await Told().listen(connection, namespace)
    yield told
    told.verify()


@pytest.fixture
async def node(engine: Engine, connection: Connection, told: Told) -> AsyncIterator[Run]:
    """`await node("worker.mjs")`: a running program of the example."""
    directory = await asyncio.to_thread(installed, ROOT / "examples/node")
    await ensure_streams(connection, engine.subjects)
    await ensure_lane(connection, engine.subjects, QUEUE, 5, LEASE_MS)
    running: list[Process] = []
    environment = {**os.environ, "NATS_URL": engine.url, "ESEXEC_NAMESPACE": engine.namespace}

    async def run(program: str, *arguments: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            NODE, program, *arguments, cwd=directory, env=environment, stdout=PIPE, stderr=STDOUT
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
async def worker(node: Run) -> Process:
    """A worker of Node that is ready."""
    return await ready(await node("worker.mjs"))


async def ready(worker: Process) -> Process:
    assert worker.stdout is not None
    line = (await asyncio.wait_for(worker.stdout.readline(), 10)).decode()
    assert "ready" in line, line + (await worker.stdout.read()).decode()
    return worker


def packing(seconds: float, *names: str) -> dict[str, object]:
    return {"items": [{"name": name, "grams": 1} for name in names or ("lamp",)], "seconds": seconds}


async def test_client_and_worker_without_a_line_of_python(node: Run, worker: Process, engine: Engine, told: Told) -> None:
    """Node starts a plan, works on it with a retry, tells how far it is, and watches every event to the end."""
    client = await node("client.mjs", "parcel-1")
    said, _ = await asyncio.wait_for(client.communicate(), 20)
    assert client.returncode == 0, said.decode()
    told_by_client = re.findall(r"^([a-z]+_[a-z_]+)(?: (\w+))?", said.decode(), re.MULTILINE)
    events = [(kind, step or None) for kind, step in told_by_client]
    assert events == await _events(engine, "parcel-1")
    assert "pack: 50 % packing the cable" in said.decode()
    result = await engine.client.get("parcel-1")
    assert (result.status, result.result) == ("completed", "lamp and cable")
    assert result.step("quote").retries == 1
    assert {"started", "completed", "failed"} <= {msgspec.json.decode(data)["type"] for data in told.of("report")}
    assert {"cmd.announce", "cmd.start", "reply", "commit", "task", "live.progress"} <= told.channels


async def test_it_says_that_it_is_there_and_what_it_can_do(worker: Process, engine: Engine) -> None:
    """A worker of Node is seen by who asks which workers there are; one that is told to end no more."""
    [there] = await engine.client.workers.present()
    assert there.worker.startswith("node-")
    assert (there.tasks, there.queues) == ({"pack": "", "quote": "", "weigh": ""}, {QUEUE: 4})
    announced = await engine.client.workers.tasks()
    assert [(one.name, one.workers, one.queues) for one in announced] == [
        (name, (there.worker,), (QUEUE,)) for name in ("pack", "quote", "weigh")
    ]
    worker.send_signal(signal.SIGTERM)
    await asyncio.wait_for(worker.communicate(), 20)
    assert await engine.client.workers.present() == []


async def _events(engine: Engine, execution_id: str) -> list[tuple[str, str | None]]:
    named = [one.partition(":") for one in await engine.types(execution_id, steps=True)]
    return [(kind, step or None) for kind, _, step in named]


async def test_its_failure_ends_the_client_with_1(node: Run, worker: Process, engine: Engine) -> None:
    """A client of Node hears of an end that is none to be glad of, and a final failure is not tried again."""
    client = await node("client.mjs", "heavy-1", "30850")
    said, _ = await asyncio.wait_for(client.communicate(), 20)
    assert client.returncode == 1
    assert "execution_failed [TOO_HEAVY] 31000 g are too heavy" in said.decode()


async def test_a_client_hears_what_the_history_says_also_where_it_comes_late(node: Run, worker: Process, engine: Engine) -> None:
    """An execution that is over is told from the log, from the first commit on."""
    first = await node("client.mjs", "parcel-2")
    told_first, _ = await asyncio.wait_for(first.communicate(), 20)
    again = await node("client.mjs", "--watch", "parcel-2")
    told_again, _ = await asyncio.wait_for(again.communicate(), 20)
    assert again.returncode == 0
    assert _events_in(told_again) == _events_in(told_first) != []


def _events_in(said: bytes) -> list[str]:
    return [line for line in said.decode().splitlines() if re.match(r"[a-z]+_", line)]


async def test_a_client_is_told_why_it_is_refused(node: Run, engine: Engine) -> None:
    """A command that cannot be is answered with a code."""
    client = await node("client.mjs", "_mine")
    said, _ = await asyncio.wait_for(client.communicate(), 20)
    assert client.returncode != 0
    assert "[bad_execution_id]" in said.decode()


async def test_leases_are_kept_by_heartbeats(worker: Process, engine: Engine, told: Told) -> None:
    """A handler that runs for several leases is not begun again."""
    result = await engine.execute("pack", packing(3.3 * LEASE_MS / 1000, "vase"), queue=QUEUE)
    assert result.result == "vase"
    assert "lost" not in {msgspec.json.decode(data)["type"] for data in told.of("report")}


async def test_a_cancel_ends_the_handler(worker: Process, engine: Engine) -> None:
    """A worker of Node ends what it is told to, and says so; it then takes other work."""
    handle = await engine.client.start("pack", packing(60), queue=QUEUE)
    await until(lambda: _has(engine, handle.id, "task_started"))
    await handle.cancel()
    result = await handle.wait(wait_timeout=5)
    assert result.status == "cancelled"
    assert (await engine.execute("weigh", packing(0), queue=QUEUE)).result == {"grams": 1}
    cancelled = next(one for one in await engine.events(handle.id) if type(one).__name__ == "TaskCancelled")
    assert cancelled.ended == "cancelled"


async def _has(engine: Engine, execution_id: str, kind: str) -> bool:
    return kind in await engine.types(execution_id)


async def test_it_says_what_it_has(worker: Process, engine: Engine, connection: Connection) -> None:
    """Asked who has an attempt, the worker of Node that runs it answers."""
    handle = await engine.client.start("pack", packing(60), queue=QUEUE)
    await until(lambda: _has(engine, handle.id, "task_started"))
    asked = msgspec.json.encode(WhoHas(execution_id=handle.id, step="pack", attempt=1))
    answer = await connection.request(engine.subjects.live(handle.id, "held"), asked)
    assert answer.data == b"+"
    await handle.cancel()


async def test_a_word_to_stop_that_overtakes_its_dispatch_counts(worker: Process, engine: Engine, connection: Connection) -> None:
    """Told to stop what it does not have yet, the worker of Node does not begin it."""
    signal_ = msgspec.json.encode(CancelSignal(execution_id="early-1", step="pack", attempt=1))
    await connection.publish(engine.subjects.live("early-1", "cancel"), signal_)
    result = await engine.execute("pack", packing(60), queue=QUEUE, execution_id="early-1", max_retries=0)
    assert (result.status, result.error.code) == ("failed", "stopped")
    assert "task_started" not in await engine.types("early-1")


async def test_a_timeout_ends_the_handler(worker: Process, engine: Engine) -> None:
    """A worker of Node ends what runs past its timeout, which is an attempt that failed."""
    result = await engine.execute("pack", packing(60), queue=QUEUE, timeout=0.3, max_retries=0)
    assert (result.status, result.error.code) == ("failed", "task_timeout")


async def test_a_lost_worker_s_attempt_goes_to_another(node: Run, worker: Process, engine: Engine, told: Told) -> None:
    """Killed in the middle of a handler, a worker of Node loses its lease; the next one says so, and does the work."""
    handle = await engine.client.start("pack", packing(1.5), queue=QUEUE)
    await until(lambda: _has(engine, handle.id, "task_started"))
    worker.kill()
    await ready(await node("worker.mjs"))
    result = await handle.wait(wait_timeout=10)
    assert result.result == "lamp"
    assert "lost" in {msgspec.json.decode(data)["type"] for data in told.of("report")}


async def test_a_worker_that_is_told_to_end_lets_its_handlers_end(worker: Process, engine: Engine) -> None:
    """SIGTERM: nothing new is taken, and what runs is reported."""
    handle = await engine.client.start("pack", packing(1.0), queue=QUEUE)
    await until(lambda: _has(engine, handle.id, "task_started"))
    worker.send_signal(signal.SIGTERM)
    assert (await handle.wait(wait_timeout=5)).result == "lamp"
    assert await asyncio.wait_for(worker.wait(), 5) == 0


async def test_nonsense_does_no_harm(worker: Process, engine: Engine, connection: Connection, told: Told) -> None:
    """Bytes that are no message, on every subject that the worker of Node hears: it goes on."""
    for data in (b"", b"\xff", b"[", b"null", b"7", b'{"step": {}}'):
        for kind in ("cancel", "held"):
            await connection.publish(engine.subjects.live("any", kind), data)
    await connection.publish(engine.subjects.task(QUEUE, 5, "any", "pack", 1, 1), b"nonsense")
    assert (await engine.execute("weigh", packing(0), queue=QUEUE)).result == {"grams": 1}
    assert worker.returncode is None
    told.forget()


async def test_an_output_that_cannot_be_sent_is_a_failure(worker: Process, engine: Engine) -> None:
    """What is too large for a report is said to be, and not tried again."""
    result = await engine.execute("pack", packing(0, *["x" * 84_000] * 3), queue=QUEUE)
    assert (result.status, result.error.code) == ("failed", "output_too_large")


async def test_what_it_does_not_know_fails_for_good(worker: Process, engine: Engine) -> None:
    """A task that a worker of Node has not is refused, and not tried again."""
    result = await engine.execute("juggle", {}, queue=QUEUE)
    assert (result.status, result.error.code) == ("failed", "unknown_task")
