"""The test kit: real handlers and the real core, in memory and in virtual time."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import esexec
from esexec import (
    Cache,
    Context,
    Plan,
    RateLimit,
    RateLimited,
    RecoveryAction,
    RecoveryContext,
    RecoveryResult,
    ResourcePool,
    Step,
    ValidationError,
)
from esexec.testing import VirtualEngine
from tests import class_tasks, process_tasks

fetched: list[str] = []


@esexec.task
async def reserve(sku: str) -> dict[str, str]:
    """Keeps a thing."""
    return {"reservation": f"r-{sku}"}


@reserve.compensate
def give_back(reservation: str) -> str:
    return f"{reservation} is free"


@esexec.task(timeout="10s")
def charge(cents: int) -> str:
    return f"receipt-{cents}"


@esexec.task(timeout="1d")
async def ship(reservation: str) -> str:
    await asyncio.sleep(2 * 3600)
    return f"{reservation} is there"


ORDER = Plan(
    "order",
    steps=[
        Step(reserve, params={"sku": "${input.sku}"}),
        Step(charge, params={"cents": 990}, depends_on=["reserve"]),
        Step(ship, params={"reservation": "${steps.reserve.output.reservation}"}, depends_on=["charge"]),
    ],
)
TEA = {"sku": "tea"}


@pytest.fixture
def engine() -> Iterator[VirtualEngine]:
    with VirtualEngine() as engine:
        yield engine.given([reserve, charge, ship])


def one_step(task: esexec.Task[..., Any] | str, **said: Any) -> Plan:
    return Plan("one", steps=[Step(task, id="it", **said)])


# Running ----------------------------------------------------------------------------------------------------------------


def test_handlers_async_and_sync_run_for_real_and_hours_take_no_time(engine: VirtualEngine) -> None:
    """Real handlers give the output; what they sleep passes on the virtual clock and not on this one."""
    before = time.monotonic()
    then = engine.when(ORDER, TEA)
    then.completed(output="r-tea is there").attempts("reserve", "charge", "ship")
    then.called(reserve, TEA).called("ship", {"reservation": "r-tea"}).called("give_back")
    then.outputs(reserve={"reservation": "r-tea"}, charge="receipt-990")
    assert then.took == timedelta(hours=2)
    assert time.monotonic() - before < 60


def test_every_attempt_is_in_the_history(engine: VirtualEngine) -> None:
    """Events may be asked for by type, by step, by attempt; of the types that are named all must be there."""
    engine.fail_step("charge")
    then = engine.when(ORDER, TEA)
    then.events("task_failed charge 1", "task_retry_scheduled", "execution_completed")
    then.events("task_completed reserve", "task_completed charge", "task_completed ship")
    assert then.happened[:3] == ["execution_created", "execution_started", "task_scheduled reserve 1"]
    assert then.step("charge").retries == 1


def test_retries_wait_as_the_policy_says(engine: VirtualEngine) -> None:
    """Without a seed the delays are exactly those of the policy."""
    engine.fail_step("charge", ConnectionError("no route"), times=3)
    engine.when(ORDER, TEA).completed().retried("charge", "1s", "2s", "4s")


def test_a_seed_gives_jitter_that_is_the_same_each_time() -> None:
    """With the same seed two engines write the same bytes, jitter and ids included; with another one they do not."""

    def histories(seed: int | None) -> list[bytes]:
        with VirtualEngine(seed=seed) as engine:
            engine.given([reserve, charge, ship]).fail_step("charge", times=2)
            engine.when(ORDER, TEA)
            return [one.data for history in engine._log.histories.values() for one in history]

    assert histories(7) == histories(7) != histories(8)
    assert histories(None) == histories(None)


def test_what_the_handler_says_of_a_retry_counts(engine: VirtualEngine) -> None:
    """The error is a real one, and so read by the real rules."""
    engine.fail_step("charge", RateLimited("slowly", retry_after=30))
    engine.when(ORDER, TEA).completed().retried("charge", "30s")


def test_failures_may_last(engine: VirtualEngine) -> None:
    """All attempts within the time fail, those behind it do not."""
    engine.fail_step("charge", lasting="2s")
    engine.when(ORDER, TEA).completed().retried("charge", "1s", "2s")


def test_a_step_that_hangs_times_out(engine: VirtualEngine) -> None:
    """What never ends is ended by its timeout; here in no time."""
    engine.fail_step("charge", hangs=True, times=None)
    then = engine.when(ORDER, TEA, max_retries=1)
    then.rolled_back("reserve").events("task_timed_out charge 1", "task_timed_out charge 2")
    assert then.took >= timedelta(seconds=20)


def test_a_fallback_does_the_work_of_a_step_that_fails(engine: VirtualEngine) -> None:
    """A fault hits the step's own task, not what is done in its stead."""
    engine.fail_step("it", "GONE", retry=False)
    engine.stub("cash", returns="paid")
    engine.when(one_step(charge, params={"cents": 1}, fallback="cash")).completed("paid").attempts("it", "fallback it")


def test_undoing_may_fail_too(engine: VirtualEngine) -> None:
    """A rollback of which one step cannot be undone is partial."""
    engine.fail_step("charge", "DECLINED", retry=False)
    engine.fail_step("reserve", "LOCKED", retry=False, undoing=True)
    then = engine.when(ORDER, TEA).failed("DECLINED", step="charge").attempts("reserve", "charge", "undo reserve")
    assert then.result.rollback_status == "partial"


def test_a_deadline_ends_what_goes_on(engine: VirtualEngine) -> None:
    """Deadlines are of virtual time, also where they are said as a duration."""
    then = engine.when(ORDER, TEA, deadline="1h")
    then.events("execution_deadline_exceeded")
    assert then.took < timedelta(hours=2)


# Stubs ------------------------------------------------------------------------------------------------------------------


def test_a_stub_stands_in_for_a_task(engine: VirtualEngine) -> None:
    """It returns what it was told to, or what a function makes of the params, takes its time, and knows its calls."""
    stub = engine.stub(charge, returns=lambda cents: f"test-{cents}", takes="3s")
    then = engine.when(ORDER, TEA).completed().outputs(charge="test-990")
    assert stub.calls == [{"cents": 990}]
    assert then.step("charge").duration_ms == 3_000


def test_a_stub_raises(engine: VirtualEngine) -> None:
    """Each call fails with that error; the settings are those of the task that it stands in for."""
    engine.stub("charge", raises=ValidationError("no such card", code="NO_CARD"))
    engine.when(ORDER, TEA).rolled_back("reserve", code="NO_CARD").attempts("reserve", "charge", "undo reserve")


def test_a_stub_refuses_what_its_task_would_refuse(engine: VirtualEngine) -> None:
    """A plan that calls a task wrongly is refused in the test as it would be in life, or fails where only its input is wrong."""
    engine.stub(charge, returns="receipt")
    with pytest.raises(ValidationError, match="unexpected parameter `pounds`"):
        engine.when(one_step("charge", params={"pounds": 3}))
    engine.when(one_step("charge", params={"cents": "${input.price}"}), {"price": "much"}).failed("invalid_params")


def test_a_stub_needs_no_task(engine: VirtualEngine) -> None:
    """A step may call what this program does not have."""
    engine.stub("elsewhere", returns={"n": 1})
    engine.when(one_step("elsewhere", params={"a": [1]})).completed({"n": 1}).called("elsewhere", {"a": [1]})


# Time -------------------------------------------------------------------------------------------------------------------


def test_time_passes_only_when_it_is_told_to(engine: VirtualEngine) -> None:
    """`start` lets happen what happens at once, `tick` what is due next, `advance` what happens in a time."""
    engine.fail_step("charge", times=2)
    began = engine.now
    then = engine.start(ORDER, TEA).has_status("running").attempts("reserve", "charge")
    assert engine.now == began
    assert engine.tick() == timedelta(seconds=1)
    then.attempts("reserve", "charge", "charge")
    engine.advance("1500ms")
    then.attempts("reserve", "charge", "charge")
    engine.advance("500ms")
    then.attempts("reserve", "charge", "charge", "charge", "ship")
    engine.finish(then).completed()
    assert engine.tick() == timedelta(0)


def test_a_start_may_be_put_off(engine: VirtualEngine) -> None:
    """A delay is waited for; before it is over nothing runs."""
    then = engine.start(ORDER, TEA, delay="1d").has_status("pending")
    engine.advance("23h")
    then.attempts()
    engine.advance("1h")
    then.attempts("reserve", "charge", "ship")


def test_control_verbs_work(engine: VirtualEngine) -> None:
    """Pause, resume, cancel, retry and rollback go through the real client."""
    engine.fail_step("charge", "DOWN", retry=False)
    then = engine.when(ORDER, TEA, enable_rollback=False).failed("DOWN")
    engine.retry(then)
    engine.pause(then)
    engine.advance("5h")
    then.has_status("completed")
    other = engine.start(ORDER, TEA)
    assert engine.cancel(other, "no tea")
    engine.finish(other).cancelled().undone()
    engine.finish(engine.rollback(other)).rolled_back("reserve")


def test_a_pause_holds_what_follows(engine: VirtualEngine) -> None:
    """Paused, a retry that is due waits for the resume."""
    engine.fail_step("charge")
    then = engine.start(ORDER, TEA)
    assert engine.pause(then)
    engine.advance("1d")
    then.has_status("paused").attempts("reserve", "charge")
    assert engine.resume(then)
    engine.finish(then).completed()


# What executions share, and what handlers have -----------------------------------------------------------------------------


def test_rate_limits_pass_in_virtual_time(engine: VirtualEngine) -> None:
    """Who has to wait waits for as long as the limit says, and the third comes a minute behind the first."""
    called = esexec.task(name="call", rate_limit=RateLimit(2, 60_000))(lambda: None)
    steps = [Step(called, id=f"s{n}", parallel=True) for n in range(3)]
    then = engine.given(called).when(Plan("calls", steps=steps)).completed()
    then.events("task_granted s0", "task_granted s1", "task_rate_limited s2", "task_granted s2")
    assert then.took == timedelta(minutes=1)


def test_concurrency_keys_hold(engine: VirtualEngine) -> None:
    """A second execution with the same key begins when the first has ended."""
    first = engine.start(ORDER, TEA, concurrency={"key": "k", "limit": 1})
    second = engine.start(ORDER, {"sku": "milk"}, concurrency={"key": "k", "limit": 1})
    second.attempts()
    engine.finish(second).completed("r-milk is there")
    first.completed("r-tea is there")


def test_resource_pools_are_shared(engine: VirtualEngine) -> None:
    """Steps that need the same scarce thing run one after the other."""

    @esexec.task(resources={"gpu": 1}, timeout="2h")
    async def train() -> None:
        await asyncio.sleep(3600)

    engine.given(train)
    engine.run(engine.client.resources.declare(ResourcePool(id="gpus", type="gpu", capacity=1)))
    steps = [Step(train, id=f"s{n}", parallel=True) for n in range(2)]
    assert engine.when(Plan("training", steps=steps)).completed().took == timedelta(hours=2)


def test_what_a_handler_leaves_is_there(engine: VirtualEngine) -> None:
    """Before-images are kept before the handler goes on, also from a thread; variables and measures are in the history."""

    @esexec.task
    async def update_price(ctx: Context) -> int:
        ctx.vars["seen"] = True
        ctx.metric("rows", 3)
        return int((await ctx.before({"price": 7}))["price"])

    @esexec.task
    def update_stock(ctx: Context) -> Any:
        return ctx.before_sync({"stock": 1}), ctx.vars["seen"]

    plan = Plan("updates", steps=[Step(update_price, id="price"), Step(update_stock, id="stock", depends_on=["price"])])
    then = engine.given([update_price, update_stock]).when(plan)
    then.completed([{"stock": 1}, True]).events("before_image_recorded price", "before_image_recorded stock")
    assert then.result.variables == {"seen": True}


def test_cached_results_and_resources_of_the_worker(engine: VirtualEngine) -> None:
    """A result is found again as long as it lasts, and a handler has its worker's resources."""
    fetched.clear()

    @esexec.task(cache=Cache(ttl="1h"), uses=["db"])
    def fetch(name: str, ctx: Context) -> str:
        fetched.append(name)
        return f"{ctx.resources['db']}/{name}"

    engine.given(fetch, resources={"db": lambda: "a database"})
    plan = one_step(fetch, params={"name": "tea"})
    engine.when(plan).completed("a database/tea")
    engine.when(plan).completed("a database/tea").events("task_cache_hit it")
    engine.advance("2h")
    engine.when(plan).completed("a database/tea").events("task_completed it")
    assert fetched == ["tea", "tea"]


def test_recovery_strategies_are_asked(engine: VirtualEngine) -> None:
    """A strategy that is given is known to the namespace, and its code runs."""

    @esexec.recovery("BROKEN")
    async def mend(ctx: RecoveryContext) -> RecoveryResult:
        return RecoveryResult(True, RecoveryAction.RETRY)

    engine.given(strategies=[mend]).fail_step("it", "BROKEN", retry=False)
    then = engine.when(one_step(charge, params={"cents": 1}))
    then.completed("receipt-1").attempts("it", "recover it", "it")


def test_a_program_that_has_the_client_is_run(engine: VirtualEngine) -> None:
    """Whatever is awaited of the client passes in virtual time: here a whole program."""

    async def program() -> list[Any]:
        async with engine.client as client:
            handle = await client.start(ORDER, TEA)
            await asyncio.sleep(1)
            checkpoint = await handle.checkpoint()
            output = await handle.result(wait_timeout="1d")
            ended = await handle.wait()
            assert ended.position == (await client.get_or_raise(handle.id)).position > 0
            return [output, (await client.checkpoints.get(checkpoint.id)).by, (await client.verify(handle.id)).ok]

    assert engine.run(program()) == ["r-tea is there", "command", True]


def test_what_programs_and_handlers_start_can_be_asked_for(engine: VirtualEngine) -> None:
    """A handler that has the client may start executions of its own, and the test looks at them by their ids."""

    @esexec.task
    async def order_for(sku: str) -> str:
        handle = await engine.client.start(ORDER, {"sku": sku}, execution_id=f"for-{sku}")
        return str(await handle.result(wait_timeout="1d"))

    then = engine.given(order_for).when(one_step(order_for, params={"sku": "tea"}, timeout="1d")).completed("r-tea is there")
    engine.then("for-tea").completed("r-tea is there").attempts("reserve", "charge", "ship")
    assert engine.then("for-tea").result.parent == f"{then.id}/it"
    with pytest.raises(esexec.NotFound):
        engine.then("for-milk")


def test_a_history_from_elsewhere_can_be_looked_at(engine: VirtualEngine) -> None:
    """A file from production is taken in, and asked as if it had happened here."""
    engine.fail_step("charge")
    then = engine.when(ORDER, TEA)
    lines = engine.run(engine.client.histories.export(then.id))
    with VirtualEngine() as other:
        other.run(other.client.histories.import_(lines))
        other.then(then.id).completed().retried("charge", "1s")


def test_a_worker_cannot_have_what_its_tasks_lack(engine: VirtualEngine) -> None:
    """What is given is checked as a worker checks it."""
    with pytest.raises(ValidationError) as caught:
        engine.given(esexec.task(name="needy", uses=["db"])(lambda: None))
    assert caught.value.code == "unknown_resource"


def test_maps_and_chains_pass_in_virtual_time(engine: VirtualEngine) -> None:
    """What the client makes of many calls is executions as all others."""

    async def program(client: esexec.Client) -> list[Any]:
        mapped = await client.map(ship, [{"reservation": name} for name in ("tea", "milk")], timeout="1d", return_errors=True)
        return [one.value for one in mapped if isinstance(one, esexec.Ok)]

    assert engine.run(program(engine.client)) == ["tea is there", "milk is there"]
    assert engine.run(engine.client.map(charge, [{"cents": 1}, {"cents": 2}])) == ["receipt-1", "receipt-2"]


def test_what_is_to_run_in_a_process_runs_here(engine: VirtualEngine) -> None:
    """A process has a clock of its own: a thread of this one takes its place."""
    then = engine.given(process_tasks).when(process_tasks.on_a_loop).completed(os.getpid())
    assert then.result.variables == {"before": {"was": 1}}


def test_handlers_of_classes_are_given_as_any(engine: VirtualEngine) -> None:
    """An object of `Handlers`, with a handler for tasks of any name."""
    engine.given(class_tasks.Shop())
    engine.when("sell", {"what": "tea"}).completed({"sold": ["tea"], "step": "sell"})
    assert engine.when("crop", {"n": 1}).completed().result.result["input"] == {"n": 1}
    engine.when("nobody").failed("unknown_task")


def test_large_values_travel_as_objects(engine: VirtualEngine) -> None:
    """What is too large for a message goes through the object store, here as there."""
    engine.stub("grow", returns=lambda text: text * 3)
    large = "x" * 300_000
    steps = [Step("grow", id="a", params={"text": "${input.text}"}), Step("grow", id="b", params={"text": "${steps.a.output}"})]
    then = engine.when(Plan("large", steps=steps), {"text": large}).completed(large * 9)
    assert sum(len(one.data) for one in engine._log.histories[then.id]) < 10_000


def test_settings_of_the_namespace(engine: VirtualEngine) -> None:
    """What is given by name is the namespace's level of the settings."""
    engine.given(max_retries=0).fail_step("charge")
    engine.when(ORDER, TEA).rolled_back("reserve").attempts("reserve", "charge", "undo reserve")


# Crashes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{}, {"times": 2}, {"retry": False}, {"hangs": True}], ids=str)
def test_an_executor_that_dies_after_each_commit_changes_nothing(fault: dict[str, Any]) -> None:
    """The one that takes its place knows only the log, and goes on from there: what happens is the same."""

    def happened(*, crashes: bool) -> list[str]:
        with VirtualEngine() as engine:
            engine.given([reserve, charge, ship])
            if fault:
                engine.fail_step("charge", **fault)
            if crashes:
                engine.crash_after()
            return engine.when(ORDER, TEA).happened

    assert happened(crashes=True) == happened(crashes=False)


def test_an_executor_may_die_at_any_moment(engine: VirtualEngine) -> None:
    """Between two things that happen, or just after a certain event; the next one is called differently."""
    engine.fail_step("charge")
    engine.crash_after("task_failed")
    then = engine.start(ORDER, TEA)
    engine.tick()
    engine.crash()
    engine.finish(then).completed().attempts("reserve", "charge", "charge", "ship")
    assert {commit.executor for commit in then.history} == {"executor-1", "executor-2", "executor-3"}


def test_a_worker_may_be_lost(engine: VirtualEngine) -> None:
    """The attempt is the same, its handler is called again when the lease is over, and too many losses are a failure."""
    engine.lose_worker("reserve")
    then = engine.when(ORDER, TEA).completed().attempts("reserve", "charge", "ship").called(reserve, TEA, TEA)
    then.events("task_completed reserve 1", "task_completed charge 1", "task_completed ship 1")
    assert then.took == timedelta(hours=2, seconds=5)
    engine.lose_worker("reserve", times=None)
    then = engine.when(ORDER, TEA, max_retries=0, enable_rollback=False).failed("WORKER_LOST", step="reserve")
    then.called(reserve, *[TEA] * 10)


def test_what_is_shared_survives_crashes(engine: VirtualEngine) -> None:
    """Grants of a rate limit come once, whoever tells them."""
    called = esexec.task(name="call", rate_limit=RateLimit(1, 60_000))(lambda: None)
    engine.given(called).crash_after()
    steps = [Step(called, id=f"s{n}", parallel=True) for n in range(3)]
    assert engine.when(Plan("calls", steps=steps)).completed().took == timedelta(minutes=2)


# What is said of what is wrong ----------------------------------------------------------------------------------------------


def test_a_difference_can_be_read(engine: VirtualEngine) -> None:
    """What was wanted, what was there, and all that happened stand in the error."""
    engine.fail_step("charge", "DECLINED", retry=False)
    then = engine.when(ORDER, TEA)
    with pytest.raises(AssertionError) as caught:
        then.attempts("reserve", "charge", "ship")
    text = str(caught.value)
    assert "- ship" in text and "+ undo reserve" in text and "0.000 s  task_failed charge 1: [DECLINED]" in text
    with pytest.raises(AssertionError, match=r"it is rolled_back of \[DECLINED\].*, not completed"):
        then.completed()
    with pytest.raises(AssertionError, match="'DECLINED', not 'OTHER'"):
        then.rolled_back(code="OTHER")
    with pytest.raises(AssertionError, match="there is no step 'chargee'; there are: reserve, charge, ship"):
        then.step("chargee")
    with pytest.raises(AssertionError, match="no type of event 'task_fialed'"):
        then.events("task_fialed")


def test_a_fault_that_hits_nothing_is_told() -> None:
    """A test that thinks that it has injected a fault, and has not, fails."""
    engine = VirtualEngine().given([reserve, charge, ship])
    engine.fail_step("chargee")
    engine.when(ORDER, TEA).completed()
    with pytest.raises(AssertionError, match="the fault of step `chargee` hit nothing"):
        engine.close()


def test_a_history_that_does_not_verify_is_told() -> None:
    """Each test ends with a look at all histories."""
    engine = VirtualEngine().given([reserve, charge, ship])
    then = engine.when(ORDER, TEA)
    history = engine._log.histories[then.id]
    history[1] = history[1]._replace(data=history[1].data.replace(b"r-tea", b"r-ale"))
    with pytest.raises(AssertionError, match=f"{then.id}: commit"):
        engine.close()


async def test_not_within_another_loop() -> None:
    """In an async test it is said what to do."""
    with pytest.raises(ValidationError) as caught:
        VirtualEngine()
    assert caught.value.code == "loop_running"


def test_a_thread_that_does_not_end_is_told() -> None:
    """Real time is waited for as long as the engine is patient, and no longer."""
    gate = threading.Event()
    stuck = esexec.task(name="stuck")(gate.wait)
    engine = VirtualEngine(patience="100ms").given(stuck)
    with pytest.raises(TimeoutError, match="thread"):
        engine.when(one_step(stuck))
    gate.set()
    engine.close(check=False)


def test_what_fails_unseen_is_told(engine: VirtualEngine) -> None:
    """A task that a handler has left alone, and that failed, fails the test."""

    @esexec.task
    async def careless() -> None:
        async def later() -> None:
            raise RuntimeError("nobody looks")

        asyncio.get_running_loop().create_task(later())
        await asyncio.sleep(1)

    with pytest.raises(RuntimeError, match="nobody looks"):
        engine.given(careless).when(one_step(careless))


def test_what_waits_for_nothing_is_told(engine: VirtualEngine) -> None:
    """A coroutine that nothing will ever wake up does not hang the test."""
    with pytest.raises(esexec.InternalError, match="nothing will happen any more"):
        engine.run(asyncio.Event().wait())
