"""Starting, waiting, asking, cancelling: what a caller gets, and what it does not do to the execution."""

import asyncio
import inspect
from collections.abc import Callable

import pytest

import esexec
from esexec import ExecutionStatus, Plan, Step
from esexec.nats.connection import connect
from esexec.nats.embedded import EmbeddedServer
from esexec.nats.streams import delete_streams
from tests.integration.engine import KINDS, Engine, until

everywhere = pytest.mark.parametrize("engine", list(KINDS), indirect=True)
without_executor = pytest.mark.parametrize("engine", [None], indirect=True)


@esexec.task
async def double(number: int) -> int:
    return 2 * number


@esexec.task
async def refuse(reason: str = "no") -> None:
    raise esexec.ExecutionError(reason, code="refused_by_handler", retry=False)


class Gate:
    """A task that waits until it is let through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.calls = 0

        @esexec.task(name="gate", timeout=0)
        async def gate() -> str:
            self.calls += 1
            await self.open.wait()
            return "through"

        self.task = gate


@pytest.fixture
def gate() -> Gate:
    return Gate()


# The usual way -------------------------------------------------------------------------------------------------------


@everywhere
async def test_a_plan_runs_to_its_end_and_its_history_verifies(engine: Engine) -> None:
    """The issue's first example: start, wait, output, one event after the other, a history that verifies."""
    await engine.worker(double)
    plan = Plan(
        "twice",
        steps=[
            Step(double, id="a", params={"number": "${input.number}"}),
            Step("double", id="b", params={"number": "${steps.a.output}"}),
        ],
    )
    handle = await engine.client.start(plan, input={"number": 5})
    assert await handle.result(wait_timeout=8) == 20
    assert await engine.types(handle.id, steps=True) == [
        "execution_created", "execution_started",
        "task_scheduled:a", "task_started:a", "task_completed:a",
        "task_scheduled:b", "task_started:b", "task_completed:b",
        "execution_completed",
    ]  # fmt: skip
    assert (await engine.client.verify(handle.id)).ok


@everywhere
async def test_a_start_returns_when_the_executor_has_committed(engine: Engine) -> None:
    """F010: after `start` the execution is there for everyone, at once, also while no worker runs."""
    handle = await engine.client.start("double", {"number": 1})
    assert await handle.status() == ExecutionStatus.RUNNING
    assert await engine.client.executions.status(handle.id) == ExecutionStatus.RUNNING
    assert (await engine.client.history(handle.id))[0].n == 1


@everywhere
async def test_one_task_is_an_execution_of_one_step(engine: Engine) -> None:
    """F001, F002: `run(task, params)` gives its output, by name and by function."""
    await engine.worker(double)
    assert await engine.client.run("double", {"number": 2}, wait_timeout=8) == 4
    assert await engine.client.run(double, {"number": 3}, wait_timeout=8) == 6


@everywhere
async def test_a_failed_execution_is_a_result_and_an_error_only_where_the_output_is_asked_for(engine: Engine) -> None:
    """F005, F019: `execute` and `wait` never raise for a failed execution; `run` and `result` raise its typed error."""
    await engine.worker(refuse)
    result = await engine.client.execute(refuse, {"reason": "full"}, wait_timeout=8)
    assert (result.status, result.ok, result.result) == (ExecutionStatus.FAILED, False, None)
    assert result.error is not None
    assert (result.error.type, result.error.code, result.error.message) == ("execution_error", "refused_by_handler", "full")
    handle = engine.client.handle(result.id)
    assert (await handle.wait()).status == ExecutionStatus.FAILED
    with pytest.raises(esexec.ExecutionError, match="full") as raised:
        await handle.result()
    assert raised.value.code == "refused_by_handler"
    with pytest.raises(esexec.ExecutionError, match="empty"):
        await engine.client.run("refuse", {"reason": "empty"}, wait_timeout=8)


async def test_poll_and_status_tell_without_waiting(engine: Engine, gate: Gate) -> None:
    """F020, F200: `Pending` while it runs, then `Ok(value)` or `Err(error)`; `status` is the full enum."""
    await engine.worker(gate.task, refuse)
    handle = await engine.client.start("gate")
    assert await handle.poll() == esexec.Pending(ExecutionStatus.RUNNING)
    gate.open.set()
    await handle.wait(wait_timeout=8)
    assert await handle.poll() == esexec.Ok("through")
    assert await handle.status() is ExecutionStatus.COMPLETED
    failed = await engine.execute("refuse")
    match await engine.client.poll(failed.id):
        case esexec.Err(error):
            assert error.code == "refused_by_handler"
        case other:
            raise AssertionError(other)


async def test_the_result_tells_everything_of_an_execution_and_its_steps(engine: Engine) -> None:
    """Groups J: ids, counts, times, durations, the plan's id, input, metadata, owner, each step with its worker."""
    worker = await engine.worker(double, name="w-1")
    client = await engine.another_client(owner="alice")
    plan = Plan("sums", steps=[Step(double, id="one", params={"number": 1}), Step(double, id="two", params={"number": 2})])
    result = await client.execute(plan, {"any": 1}, wait_timeout=8, metadata={"team": "a"}, execution_id="sums-1")
    assert (result.execution_id, result.plan_id, result.name) == ("sums-1", plan.id, "sums")
    assert (result.input, result.metadata, result.owner, result.run) == ({"any": 1}, {"team": "a"}, "alice", 1)
    assert (result.total_steps, result.completed_steps, result.failed_steps) == (2, 2, 0)
    assert result.result == {"one": 2, "two": 4} == result.partial_results
    assert None not in (result.created_at, result.started_at, result.completed_at)
    assert result.created_at <= result.started_at <= result.completed_at
    assert result.duration_ms is not None
    for index, task in enumerate(result.results):
        assert (task.step_index, task.name, task.tool, task.worker_id) == (index, "double", "double", worker.name)
        assert None not in (task.started_at, task.completed_at)
        assert task.started_at <= task.completed_at
        assert task.duration_ms is not None
        assert (task.retries, task.retry_count, task.error, task.stack, task.next_retry_at) == (0, 0, None, None, None)
        assert task.was_rate_limited is False


async def test_the_handle_knows_who_runs_it_and_who_asked(engine: Engine, gate: Gate) -> None:
    """F013, F014: the worker is None while queued; the owner is the client's."""
    client = await engine.another_client(owner="bob")
    handle = await client.start(gate.task)
    assert (await handle.owner(), await handle.worker_id()) == ("bob", None)
    worker = await engine.worker(gate.task)
    assert await until(handle.worker_id) == worker.name
    gate.open.set()
    await handle.wait(wait_timeout=8)
    assert await handle.worker_id() == worker.name


async def test_handlers_get_the_context_of_the_caller(engine: Engine) -> None:
    """F003: `context` is extra data beside params, for handlers and for references."""

    @esexec.task
    async def whose(tenant: str, ctx: esexec.Context) -> list[str]:
        return [tenant, ctx.context["user_id"]]

    await engine.worker(whose)
    plan = Plan("whose", steps=[Step(whose, id="whose", params={"tenant": "${context.tenant}"})])
    result = await engine.execute(plan, context={"tenant": "acme", "user_id": "u7"})
    assert result.result == ["acme", "u7"]


# The caller's patience ------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("ask", [lambda handle: handle.result, lambda handle: handle.wait])
async def test_the_callers_patience_never_touches_the_execution(engine: Engine, gate: Gate, ask: Callable) -> None:
    """F016–F018, F124, C15: `AwaitTimeout`, a TimeoutError; the execution goes on and can be waited for again."""
    await engine.worker(gate.task)
    handle = await engine.client.start("gate")
    with pytest.raises(esexec.AwaitTimeout) as raised:
        await ask(handle)(wait_timeout=0.05)
    assert isinstance(raised.value, TimeoutError)
    with pytest.raises(esexec.AwaitTimeout):
        await engine.client.executions.result(handle.id, wait_timeout=0.01)
    assert await handle.status() == ExecutionStatus.RUNNING
    gate.open.set()
    assert (await handle.wait(wait_timeout=None)).result == "through"
    assert gate.calls == 1
    assert "execution_cancel_requested" not in await engine.types(handle.id)


async def test_who_waits_for_what_is_not_there_is_told_so(engine: Engine) -> None:
    """It may yet come, so it is waited for; but nothing is said to go on that nobody has seen."""
    with pytest.raises(esexec.AwaitTimeout, match=r"there is no execution nobody yet, after 0\.05 s") as raised:
        await engine.client.wait("nobody", wait_timeout=0.05)
    assert "goes on" not in (raised.value.hint or "")


async def test_a_caller_that_is_cancelled_while_it_waits_takes_nothing_back(engine: Engine, gate: Gate) -> None:
    """Design §3: cancelling the coroutine that waits cancels the waiting, nothing else."""
    await engine.worker(gate.task)
    waiting = asyncio.create_task(engine.client.run("gate", execution_id="kept"))
    await until(lambda: gate.calls)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.open.set()
    assert await engine.client.handle("kept").result(wait_timeout=8) == "through"


async def test_by_default_a_caller_waits_five_seconds_for_a_result() -> None:
    """F016: the default of `wait_timeout` is 5 s for `result` and `wait`, for ever for `run` and `execute`."""

    def patience(function: Callable) -> float | None:
        return inspect.signature(function).parameters["wait_timeout"].default

    assert patience(esexec.Handle.result) == patience(esexec.Handle.wait) == patience(esexec.Client.wait) == 5.0
    assert patience(esexec.Client.run) is patience(esexec.Client.execute) is None


async def test_many_wait_for_one_execution(engine: Engine, gate: Gate) -> None:
    """Ten callers, of two clients, wait for the same execution; each gets the result."""
    await engine.worker(gate.task)
    other = await engine.another_client()
    handle = await engine.client.start("gate")
    waiting = [asyncio.create_task(client.wait(handle.id)) for client in (engine.client, other) for _ in range(5)]
    await until(lambda: gate.calls)
    gate.open.set()
    assert [(await one).result for one in waiting] == ["through"] * 10


async def test_two_hundred_at_once_from_one_client(engine: Engine) -> None:
    """More executions than are followed one by one: each caller gets its own result."""
    await engine.worker(double, queues={"default": 50})
    outputs = await asyncio.gather(*(engine.client.run("double", {"number": n}, wait_timeout=20) for n in range(200)))
    assert outputs == [2 * n for n in range(200)]


# Without an executor ---------------------------------------------------------------------------------------------------


@without_executor
async def test_without_an_executor_a_start_is_not_confirmed_and_carried_out_when_one_comes(engine: Engine) -> None:
    """`NotConfirmed` carries the handle; the command stays durable, and the handle goes on."""
    client = await engine.another_client(confirm_s=0.1)
    with pytest.raises(esexec.NotConfirmed) as raised:
        await client.start("double", {"number": 4})
    handle = raised.value.handle
    assert isinstance(handle, esexec.Handle)
    with pytest.raises(esexec.NotFound):
        await handle.status()
    assert await handle.poll() == esexec.Pending(ExecutionStatus.PENDING)
    waiting = asyncio.create_task(handle.result(wait_timeout=15))
    await engine.executor()
    await engine.worker(double)
    assert await waiting == 8


@without_executor
async def test_without_an_executor_every_command_is_not_confirmed(engine: Engine) -> None:
    """`execute`, `run`, `cancel` and `configure` say the same, and are carried out in the end."""
    client = await engine.another_client(confirm_s=0.1)
    with pytest.raises(esexec.NotConfirmed):
        await client.execute("double", {"number": 1}, execution_id="one")
    with pytest.raises(esexec.NotConfirmed):
        await client.run("double", {"number": 1}, execution_id="two")
    with pytest.raises(esexec.NotConfirmed):
        await client.configure(max_retries=0)
    with pytest.raises(esexec.NotConfirmed):
        await client.cancel("one")
    await engine.executor()
    assert (await client.wait("one", wait_timeout=8)).status == ExecutionStatus.CANCELLED
    assert await until(lambda: client.get("two"))


@without_executor
async def test_a_start_waits_five_seconds_for_its_confirmation(engine: Engine) -> None:
    """The default patience for a confirmation is 5 s."""
    assert engine.client._confirm_s == 5.0


# Refusals ----------------------------------------------------------------------------------------------------------------


async def test_what_is_refused_is_refused_by_type(engine: Engine) -> None:
    """Bad ids, plans, options and inputs: a typed error with code and hint, before or after the wire."""
    client = engine.client
    for execution_id in (">", "*", "a.b", "a b", "a\r\nb", "_mine", "x" * 5000, "ä"):
        with pytest.raises(esexec.ValidationError) as raised:
            await client.start("double", {"number": 1}, execution_id=execution_id)
        assert raised.value.code == "bad_execution_id"
        assert raised.value.hint
        for ask in (client.get, client.status, client.poll, client.history, client.cancel, client.wait):
            # Histories may also be those of what executions share, whose ids begin so.
            shared = ask == client.history and execution_id == "_mine"
            with pytest.raises(esexec.NotFound if shared else esexec.ValidationError):
                await ask(execution_id)
        with pytest.raises(esexec.ValidationError):
            await anext(client.monitor(execution_id))
    with pytest.raises(esexec.ValidationError):
        await client.start("no task > at all")
    with pytest.raises(esexec.PlanInvalid):
        await client.start({"name": "circle", "steps": [{"id": "a", "task": "t", "depends_on": ["a"]}]})
    with pytest.raises(esexec.ValidationError):
        await client.start("double", {"number": object()})
    with pytest.raises(esexec.ValidationError):
        await client.start("double", {"number": 1}, priority=11)
    with pytest.raises(esexec.ValidationError):
        await client.start("double", {"number": 1}, timeout=-1)
    with pytest.raises(esexec.ValidationError):
        await client.start("double", {"number": 1}, idempotency_key="k" * 513)
    with pytest.raises(esexec.ValidationError):
        await client.start("double", {"number": 1}, context={"text": "x" * 300_000})
    assert await client.list_ids() == []


async def test_what_is_not_there_is_not_found(engine: Engine) -> None:
    """F177: `get` gives None; whatever needs the execution raises `NotFound`."""
    client = engine.client
    assert await client.get("nobody") is None
    assert await client.executions.get("nobody") is None
    for ask in (client.status, client.history, client.verify, client.get_or_raise, client.cancel):
        with pytest.raises(esexec.NotFound) as raised:
            await ask("nobody")
        assert raised.value.code == "not_found"
        assert raised.value.hint


async def test_without_a_server_every_role_says_so_at_once() -> None:
    """`Unavailable`, with the address and without a password in it."""
    url = "nats://user:secret@127.0.0.1:1"
    for role in (esexec.connect(url), esexec.Executor(url), esexec.Worker(url, tasks=[double])):
        with pytest.raises(esexec.Unavailable) as raised:
            async with role:
                raise AssertionError
        assert "127.0.0.1:1" in str(raised.value)
        assert "secret" not in str(raised.value)


async def test_local_runs_everything_in_one_process(tmp_path) -> None:
    """The issue's `async with esexec.local(tasks=[…]) as client`: embedded server, executor and worker; gone afterwards."""
    async with esexec.local(tasks=[double], store=tmp_path / "store", sync="2m") as client:
        assert await client.run("double", {"number": 21}, wait_timeout=8) == 42
    async with esexec.local(tasks=[double], store=tmp_path / "store", sync="2m") as client:
        assert len(await client.list_ids()) == 1
    assert EmbeddedServer is esexec.EmbeddedServer


async def test_namespaces_do_not_see_each_other(engine: Engine) -> None:
    """F024: the same id in another namespace is another execution; commands of one never reach the other."""
    await engine.worker(double)
    await engine.execute("double", {"number": 1}, execution_id="same")
    other = Engine(engine.url, f"{engine.namespace}x")
    async with await connect(engine.url, name="test-cleanup") as connection:
        other.stack.push_async_callback(delete_streams, connection, other.subjects)
        async with other.stack:
            await other.executor()
            client = await other.another_client()
            assert await client.get("same") is None
            await client.start("double", {"number": 2}, execution_id="same")
            assert (await client.get_or_raise("same")).input == {"number": 2}
    assert (await engine.client.get_or_raise("same")).input == {"number": 1}


async def test_run_takes_params_by_both_names(engine: Engine) -> None:
    """`run` takes what a task calls params and a plan calls input, by either name."""
    await engine.worker(double)
    plan = Plan("doubling", steps=[Step(double, params={"number": "${input.n}"})])
    assert await engine.client.run(plan, input={"n": 4}, wait_timeout=5) == 8
    assert await engine.client.run("double", params={"number": 4}, wait_timeout=5) == 8
