"""The blocking client: the same verbs, errors and objects, from any thread, in any program."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import esexec
from esexec import Continue, Err, Halt, Ok, SyncClient, SyncHandle
from tests.integration.cli import hearing_signals
from tests.integration.engine import Engine

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30


@pytest.fixture
async def tasks(engine: Engine) -> Engine:
    """The engine with a worker for the tasks `double`, `fails` and `stuck`."""

    @esexec.task
    async def double(x: int, ctx: esexec.Context) -> int:
        ctx.log.info("doubling")
        return 2 * x

    @esexec.task(max_retries=0)
    async def fails() -> None:
        raise esexec.RateLimited("not now", retry_after=3, retry=False)

    @esexec.task
    async def stuck() -> None:
        await asyncio.Event().wait()

    await engine.worker(double, fails, stuck)
    return engine


async def in_thread(engine: Engine, body: Callable[[SyncClient], Any]) -> Any:
    """What a function gives that is called, in a thread, with a blocking client."""

    def work() -> Any:
        with esexec.connect_sync(engine.url, namespace=engine.namespace) as client:
            return body(client)

    return await asyncio.wait_for(asyncio.to_thread(work), PATIENCE_S)


async def test_what_is_started_is_waited_for(tasks: Engine) -> None:
    """Handles, results and read-outs are those of the asynchronous client."""

    def body(client: SyncClient) -> None:
        assert client.run("double", {"x": 2}, wait_timeout=10) == 4
        handle = client.start("double", {"x": 3}, execution_id="three")
        assert isinstance(handle, SyncHandle)
        assert (handle.id, handle.result(), handle.poll()) == ("three", 6, Ok(6))
        assert client.status("three") == client.executions.status("three") == "completed"
        assert client.get_or_raise("three").result == 6
        assert client.verify("three").ok
        assert [update.status for update in handle.monitor()][-1] == "completed"
        assert client.start("double", {"x": 3}, execution_id="three").duplicate

    await in_thread(tasks, body)


async def test_many_at_once_and_chains(tasks: Engine) -> None:
    """map, gather, chain, closures and try_run; a function that a chain asks may use the client itself."""

    def body(client: SyncClient) -> None:
        assert client.map("double", [{"x": x} for x in range(5)], concurrency=5, wait_timeout=10) == [0, 2, 4, 6, 8]
        handles = [client.start("double", {"x": x}) for x in range(3)]
        assert client.gather([*handles[:2], handles[2].id], wait_timeout=10) == [0, 2, 4]
        assert client.closure("double", {"x": 4}, wait_timeout=10)() == 8
        assert client.async_closure("double")({"x": 5}).result() == 10
        assert isinstance(client.try_run("fails", wait_timeout=10), Err)

        def ask(result: int, context: Any) -> Halt | Continue:
            return Halt(result) if result > 2 else Continue({"x": client.run("double", {"x": result}, wait_timeout=10)})

        chain = client.chain(["double", "double", "double"], {"x": 1}, interrupt=ask, wait_timeout=20)
        assert (chain.value, chain.halted_after) == (8, "double_2")

    await in_thread(tasks, body)


async def test_errors_are_of_the_same_types(tasks: Engine) -> None:
    """A failure, a refusal and the end of patience are raised in the caller's thread as they are elsewhere."""

    def body(client: SyncClient) -> None:
        with pytest.raises(esexec.RateLimited) as failed:
            client.run("fails", wait_timeout=10)
        assert failed.value.retry_after == 3
        with pytest.raises(esexec.NotFound):
            client.get_or_raise("nobody")
        with pytest.raises(esexec.ValidationError):
            client.run("no task?")
        handle = client.start("stuck")
        with pytest.raises(esexec.AwaitTimeout):
            handle.result(wait_timeout=0.1)
        assert handle.cancel()

    await in_thread(tasks, body)


async def test_iterators_and_blocks(tasks: Engine) -> None:
    """What is iterated over is an iterator, which may be left early; what is entered is entered; a block cancels."""

    def body(client: SyncClient) -> None:
        client.resources.declare({"id": "gpu", "type": "gpu", "capacity": 1})
        with client.resources.hold({"gpu": 1}) as held:
            assert [one.type for one in held] == ["gpu"]
            assert client.resources.pools()[0].free == 0
        assert client.resources.pools()[0].free == 1
        with client.start("stuck") as handle:
            for update in client.monitor(handle.id):
                if update.current_task == "stuck":
                    break
        assert handle.wait(wait_timeout=10).status == "cancelled"
        assert all(one.ok for one in client.histories.verify_all())
        kept = client.plans.put({"name": "p", "steps": [{"task": "double", "params": {"x": 1}}]})
        assert client.run(kept.plan_id, wait_timeout=10) == 2

    await in_thread(tasks, body)


async def test_events_are_an_iterator(tasks: Engine) -> None:
    """The feed is followed as far as one wants."""
    await tasks.projector()

    def body(client: SyncClient) -> None:
        client.run("double", {"x": 1}, execution_id="told", wait_timeout=10)
        for event in client.events("beginning"):
            if event.type.endswith("execution.completed"):
                break
        assert [one.id for one in client.executions.list(limit=5)] == ["told"]

    await in_thread(tasks, body)


async def test_callbacks_may_use_the_client(tasks: Engine) -> None:
    """They are called in threads, so that they may wait; the same function ends what it began."""

    def body(client: SyncClient) -> None:
        heard: list[Any] = []
        ended = threading.Event()

        def callback(update: esexec.ExecutionUpdate) -> None:
            heard.append(client.status(update.execution_id))
            if update.status.is_final:
                ended.set()

        handle = client.start("stuck")
        subscription = client.subscribe(handle.id, callback)
        assert subscription.active
        handle.cancel()
        assert ended.wait(10)
        assert heard[-1] in ("running", "cancelled")
        other = client.start("stuck")
        client.subscribe(other.id, callback)
        assert client.unsubscribe(other.id, callback)
        other.cancel()

    await in_thread(tasks, body)


async def test_many_threads_share_a_client(tasks: Engine) -> None:
    """Each gets its own answers."""

    def body(client: SyncClient) -> None:
        answers: dict[int, Any] = {}

        def work(number: int) -> None:
            answers[number] = [client.run("double", {"x": number * 10 + i}, wait_timeout=20) for i in range(5)]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert answers == {number: [2 * (number * 10 + i) for i in range(5)] for number in range(8)}

    await in_thread(tasks, body)


async def test_what_is_closed_says_so(tasks: Engine) -> None:
    """A closed client refuses; who waits in another thread while it is closed is told; it may be opened again."""

    def body() -> None:
        client = esexec.connect_sync(tasks.url, namespace=tasks.namespace)
        with pytest.raises(esexec.ValidationError) as refused:
            client.status("x")
        assert refused.value.code == "not_open"
        client.open()
        with pytest.raises(esexec.ValidationError) as refused:
            client.open()
        assert refused.value.code == "is_open"
        handle = client.start("stuck", execution_id="waited-for")
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                handle.wait(wait_timeout=None)
            except BaseException as error:
                raised.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        client.close()
        waiting.join(10)
        assert [getattr(error, "code", error) for error in raised] in (["closed"], ["not_open"])
        client.close()
        with client:
            assert client.cancel("waited-for")

    await asyncio.wait_for(asyncio.to_thread(body), PATIENCE_S)
    assert not [one for one in threading.enumerate() if one.name == "esexec-client"]


async def test_no_server_is_said_at_once(tasks: Engine) -> None:
    """Opening raises what the asynchronous client raises, and leaves no thread behind."""
    with pytest.raises(esexec.Unavailable):
        esexec.connect_sync("nats://127.0.0.1:1").open()
    assert not [one for one in threading.enumerate() if one.name == "esexec-client"]


async def test_a_handler_in_a_thread_hands_its_place_on(tasks: Engine) -> None:
    """What a synchronous handler starts with a blocking client belongs to it, as elsewhere."""
    client = esexec.connect_sync(tasks.url, namespace=tasks.namespace)

    @esexec.task
    def parent() -> str:
        return client.start("double", {"x": 1}).id

    await tasks.worker(parent, queues={"parents": 1})
    await asyncio.to_thread(client.open)
    child = await tasks.client.run(parent, execution_id="parent", queue="parents", wait_timeout=10)
    assert (await tasks.client.wait(child)).parent == "parent/parent"
    await asyncio.to_thread(client.close)


async def test_an_open_client_serves_other_threads(tasks: Engine) -> None:
    """`client.sync` runs on the client's own loop; called there it would wait for itself, and says so."""
    client = tasks.client
    assert await asyncio.to_thread(lambda: client.sync.run("double", {"x": 4}, wait_timeout=10)) == 8
    with pytest.raises(esexec.ValidationError) as refused:
        client.sync.run("double", {"x": 4})
    assert refused.value.code == "own_loop"


# In programs of their own ------------------------------------------------------------------------------------------------


class Program:
    """A program, run as a user would; `client` in it is one that is open."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.process: asyncio.subprocess.Process

    async def start(self, body: str) -> "Program":
        head = f"""
            import asyncio, os, signal, sys, esexec
            client = esexec.connect_sync({self.engine.url!r}, namespace={self.engine.namespace!r})
        """
        with hearing_signals():
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body),
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        return self

    async def ended(self) -> tuple[int, str]:
        out, errors = await asyncio.wait_for(self.process.communicate(), PATIENCE_S)
        return self.process.returncode or 0, out.decode() + errors.decode()


@pytest.fixture
async def program(tasks: Engine) -> AsyncIterator[Program]:
    program = Program(tasks)
    yield program
    if program.process.returncode is None:
        program.process.kill()
        await program.process.wait()


async def test_a_program_that_never_closes_ends(program: Program) -> None:
    """Its end closes what it left open."""
    await program.start("client.open(); print(client.run('double', {'x': 1}, wait_timeout=10))")
    assert await program.ended() == (0, "2\n")


async def test_it_works_where_a_loop_runs(program: Program) -> None:
    """In a notebook, or below any framework: the caller's loop is not its own."""
    await program.start("""
        async def main():
            with client:
                print(client.run("double", {"x": 1}, wait_timeout=10))
                print(await asyncio.to_thread(client.run, "double", {"x": 2}, wait_timeout=10))
        asyncio.run(main())
    """)
    assert await program.ended() == (0, "2\n4\n")


async def test_ctrl_c_interrupts_a_wait(program: Program) -> None:
    """It is raised where somebody waits; a block then cancels, and the program ends as it is told to."""
    await program.start("""
        with client:
            try:
                with client.start("stuck", execution_id="interrupted") as handle:
                    print("begun", flush=True)
                    handle.wait(wait_timeout=None)
            except KeyboardInterrupt:
                print("interrupted", client.wait("interrupted").status)
    """)
    assert program.process.stdout is not None
    assert await program.process.stdout.readline() == b"begun\n"
    program.process.send_signal(signal.SIGINT)
    assert await program.ended() == (0, "interrupted cancelled\n")


async def test_a_fork_is_told(program: Program) -> None:
    """A child cannot use what its parent opened, and says so instead of waiting for ever; one of its own works."""
    await program.start(f"""
        client.open()
        child = os.fork()
        if child == 0:
            try:
                client.run("double", {{"x": 1}})
            except esexec.ValidationError as error:
                print(error.code, flush=True)
            with esexec.connect_sync({program.engine.url!r}, namespace={program.engine.namespace!r}) as own:
                print(own.run("double", {{"x": 2}}, wait_timeout=10), flush=True)
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), client.run("double", {{"x": 3}}, wait_timeout=10))
    """)
    assert await program.ended() == (0, "forked\n4\n0 6\n")


# What is generated -------------------------------------------------------------------------------------------------------


async def test_the_blocking_client_is_current() -> None:
    """It is what the signatures make of it."""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "tools/generate_sync.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_nothing_public_is_left_out(engine: Engine) -> None:
    """What an open client has, and each of its parts, the blocking one has by the same name."""
    blocking = SyncClient.of(engine.client, asyncio.get_running_loop())
    handle = engine.client.handle("x")
    pairs: list[tuple[object, object]] = [(engine.client, blocking), (handle, blocking.handle("x"))]
    pairs += [
        (part, getattr(blocking, name, None))
        for name, part in vars(engine.client).items()
        if not name.startswith("_") and type(part).__module__.startswith("esexec.client.")
    ]
    assert len(pairs) > 10
    for theirs, ours in pairs:
        names = {name for name in dir(theirs) if not name.startswith("_")} - {"sync"}
        assert not names - set(dir(ours)), type(theirs)
    assert os.getpid() == blocking._loop._pid


async def test_closing_leaves_no_thread_waiting(tasks: Engine) -> None:
    """Threads that go on asking while the client is closed are told so, each of them, whenever that was."""

    def body() -> None:
        client = esexec.connect_sync(tasks.url, namespace=tasks.namespace)
        client.open()

        def ask_for_ever() -> None:
            while True:
                try:
                    client.list_ids()
                except esexec.ValidationError:  # it is not open
                    return
                except esexec.EsexecError:
                    pass

        asking = [threading.Thread(target=ask_for_ever, daemon=True) for _ in range(4)]
        for thread in asking:
            thread.start()
        client.list_ids()
        client.close()
        for thread in asking:
            thread.join(10)
        assert not any(thread.is_alive() for thread in asking)

    for _ in range(5):
        await asyncio.wait_for(asyncio.to_thread(body), PATIENCE_S)
