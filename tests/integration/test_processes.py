"""`run_in="process"`: handlers in processes of their own, which can be killed, and whose death is a failure like any other."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import esexec
from esexec.domain import events as e
from tests import process_tasks as tasks
from tests.integration.engine import Engine, until


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def test_a_handler_runs_in_a_process_of_its_own(engine: Engine) -> None:
    """Its output, variables, metrics, log lines and progress arrive as those of any other; what it prints harms nobody."""
    await engine.worker(tasks.where)
    handle = await engine.client.start(tasks.where)
    messages, told = [], {}
    async for update in engine.client.monitor(handle.id):
        messages += update.messages
        told |= update.task_progress
    result = await engine.client.get(handle.id)
    assert (result.result["parent"], result.result["stdin"], result.result["attempt"]) == (os.getpid(), "", 1)
    assert result.result["pid"] != os.getpid()
    assert result.variables == {"seen": True}
    assert [metric.name for metric in result.results[0].metrics] == ["rows"]
    await until(lambda: messages or told)
    assert [(line.message, line.context) for line in messages] == [("here", {"pid": result.result["pid"]})]


async def test_a_process_is_used_again(engine: Engine) -> None:
    """One attempt after the other has the same process: its modules are imported once."""
    await engine.worker(tasks.spin)
    first, second = [(await engine.execute(tasks.spin, {"seconds": 0})).result for _ in range(2)]
    assert first == second


async def test_so_many_processes_run_at_a_time(engine: Engine) -> None:
    """`processes` bounds them, whatever the queue's slots are; the others wait and have not started."""
    await engine.worker(tasks.spin, processes=1)
    handles = [await engine.client.start(tasks.spin, {"seconds": 0.3}) for _ in range(3)]
    results = [await handle.wait(wait_timeout=20) for handle in handles]
    assert len({result.result for result in results}) == 1
    spans = sorted((one.results[0].started_at, one.results[0].completed_at) for one in results)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


async def test_a_coroutine_may_run_in_a_process(engine: Engine) -> None:
    """It has a loop of its own there, and its before-image is in the history before it goes on."""
    await engine.worker(tasks.on_a_loop, tasks.put)
    result = await engine.execute(tasks.on_a_loop)
    assert (result.variables, result.result != os.getpid()) == ({"before": {"was": 1}}, True)
    assert [event.image for event in await engine.events(result.id) if isinstance(event, e.BeforeImageRecorded)] == [{"was": 1}]
    assert (await engine.execute(tasks.put)).result == [1, 2]


@pytest.mark.parametrize("how", ["exit", "SIGKILL", "SIGSEGV"])
async def test_a_process_that_dies_is_a_failure_that_is_retried(engine: Engine, how: str) -> None:
    """`os._exit`, a kill, a fault in C: the attempt fails with `PROCESS_CRASHED`, and the next one has another process."""
    await engine.worker(tasks.crash_once)
    result = await engine.execute(tasks.crash_once, {"how": how})
    assert (result.status, result.result) == ("completed", 2)
    failures = [event.error for event in await engine.events(result.id) if isinstance(event, e.TaskFailed)]
    assert [(one.code, one.retryable) for one in failures] == [("PROCESS_CRASHED", True)]
    assert ("exit code 3" if how == "exit" else how) in failures[0].message


async def test_a_crash_that_is_not_retried_is_a_typed_error(engine: Engine) -> None:
    """Who waits for the output gets `ProcessCrashed`."""
    await engine.worker(tasks.crash_once)
    with pytest.raises(esexec.ProcessCrashed):
        await engine.client.run(tasks.crash_once, {"how": "exit"}, max_retries=0, wait_timeout=10)


async def test_errors_come_out_of_a_process_as_out_of_a_thread(engine: Engine) -> None:
    """What is raised has its code, directive and stack; `sys.exit` ends the attempt, not the process."""
    await engine.worker(tasks.fail, tasks.spin)
    raised = (await engine.execute(tasks.fail, {"how": "raise"})).error
    assert (raised.code, raised.directive, "process_tasks.py" in raised.stack) == ("NO", [1], True)
    assert (await engine.execute(tasks.fail, {"how": "exit"})).error.code == "SYSTEM_EXIT"
    assert (await engine.execute(tasks.fail, {"how": "object"})).error.code == "output_not_serializable"
    unseen = esexec.Plan("p", steps=[esexec.Step(tasks.fail, id="a", params="${input.given}")])
    assert (await engine.execute(unseen, {"given": {"who": 1}})).error.code == "invalid_params"


async def test_a_timeout_kills_the_process(engine: Engine) -> None:
    """A handler that asks nobody is ended all the same, and the history says how; what it had measured is kept."""
    await engine.worker(tasks.spin)
    pid = (await engine.execute(tasks.spin, {"seconds": 0})).result
    result = await engine.execute(tasks.spin, {"seconds": 60}, timeout=0.2, max_retries=0)
    ended = [event for event in await engine.events(result.id) if isinstance(event, e.TaskTimedOut)]
    assert [(event.ended, [one.name for one in event.measured.metrics]) for event in ended] == [("killed", ["spun"])]
    await until(lambda: not alive(pid))
    assert (await engine.execute(tasks.spin, {"seconds": 0})).result != pid


@pytest.mark.parametrize(
    ("task", "params", "how"), [(tasks.spin, {"seconds": 60}, "killed"), (tasks.spin_and_ask, {}, "cancelled")]
)
async def test_a_cancel_ends_the_process(engine: Engine, task: esexec.Task, params: dict, how: str) -> None:
    """One that asks may end by itself; one that does not is killed soon, and need not wait for the grace."""
    await engine.worker(task)
    handle = await engine.client.start(task, params)
    await until(lambda: engine.client.status(handle.id))
    await until(lambda: _running(engine, handle.id))
    await handle.cancel()
    result = await handle.wait(wait_timeout=5)
    assert result.status == "cancelled"
    assert [event.ended for event in await engine.events(handle.id) if isinstance(event, e.TaskCancelled)] == [how]


async def _running(engine: Engine, execution_id: str) -> bool:
    return (await engine.client.get(execution_id)).results[0].status == "running"


async def test_results_of_processes_are_cached(engine: Engine) -> None:
    """The output of a task with a cache serves again, whatever it was computed in."""
    await engine.worker(tasks.cached)
    first = await engine.execute(tasks.cached, {"n": 1})
    second = await engine.execute(tasks.cached, {"n": 1})
    assert (second.result, second.results[0].cached_from) == (first.result, f"{first.id}/cached")


async def test_a_worker_that_drains_ends_its_processes(engine: Engine, tmp_path: Path) -> None:
    """What does not end in time is handed back, its process killed with what that had started; an idle one goes as well."""
    file = tmp_path / "pids"
    worker = await engine.worker(tasks.with_a_child, tasks.spin, drain_s=0.1)
    idle = (await engine.execute(tasks.spin, {"seconds": 0})).result
    await engine.client.start(tasks.with_a_child, {"pids": str(file)})
    pids = [int(pid) for pid in (await until(lambda: file.exists() and file.read_text())).split()]
    await worker.stop()
    await until(lambda: not any(map(alive, [idle, *pids])))


async def test_nothing_is_left_when_a_worker_is_killed(engine: Engine, tmp_path: Path) -> None:
    """`kill -9` of the worker takes its processes along, also one whose handler lets no other thread run."""
    file = tmp_path / "pid"
    code = (
        "import asyncio, esexec, sys; from tests import process_tasks\n"
        "asyncio.run(esexec.Worker(sys.argv[1], tasks=[process_tasks.hog], namespace=sys.argv[2]).run())"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, engine.url, engine.namespace])  # noqa: ASYNC220
    try:
        handle = await engine.client.start(tasks.hog, {"file": str(file)})
        pid = int(await until(lambda: file.exists() and file.read_text(), 20))
        assert alive(pid)
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
    finally:
        worker.kill()
        worker.wait()
    await handle.cancel()


def test_a_task_that_a_process_cannot_find_is_refused() -> None:
    """One that stands in no module is refused when the worker is made, with the way out."""

    @esexec.task(run_in="process")
    def inner() -> None: ...

    with pytest.raises(esexec.ValidationError) as refused:
        esexec.Worker("nats://nowhere", tasks=[inner])
    assert (refused.value.code, "top of a module" in refused.value.hint) == ("invalid_task", True)


@pytest.mark.parametrize("options", [{"run_in": "thread"}, {"run_in": "process", "uses": ["db"]}])
def test_what_cannot_be_is_refused_at_once(options: dict) -> None:
    """Another place than a process, and resources of the worker in one."""
    with pytest.raises(esexec.ValidationError) as refused:
        esexec.task(**options)(lambda: None)
    assert refused.value.code == "invalid_task"


async def test_a_program_may_be_its_own_module(engine: Engine, tmp_path: Path) -> None:
    """A task in the file that is run is found by its process, which runs the file once more without being the program."""
    file = tmp_path / "program.py"
    file.write_text(
        "import asyncio, os, sys, esexec\n"
        "@esexec.task(run_in='process')\n"
        "def double(n: int) -> list[int]:\n"
        "    return [2 * n, os.getpid()]\n"
        "async def main():\n"
        "    async with esexec.Worker(sys.argv[1], tasks=[double], namespace=sys.argv[2]), esexec.connect(\n"
        "        sys.argv[1], namespace=sys.argv[2]) as client:\n"
        "        print(os.getpid(), *await client.run(double, {'n': 2}))\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(file), engine.url, engine.namespace, stdout=asyncio.subprocess.PIPE
    )
    own, doubled, pid = (await asyncio.wait_for(program.communicate(), 20))[0].split()
    assert (doubled, own != pid) == (b"4", True)
