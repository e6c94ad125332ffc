"""Many at once: one execution that calls a task for every row, and waiting for many executions."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from esexec.client.handle import Handle
from esexec.domain import limits
from esexec.domain import plan as domain
from esexec.domain.errors import EsexecError, ExecutionCancelled, ValidationError, to_exception
from esexec.domain.explain import quoted
from esexec.domain.ids import is_task_name
from esexec.plans import Duration, Plan
from esexec.results import Err, ExecutionResult, Ok, TaskResult, TaskStatus, exception_of
from esexec.tasks import Returns, Task

if TYPE_CHECKING:
    from esexec.client.client import Client


def plan_of_map(task: Returns[Any] | str, count: int) -> Plan:
    """The plan that calls the task for each of so many rows, which are its input: step `row-7` has the eighth.

    Raises `ValidationError` (`bad_task_name`, `too_many_rows`).
    """
    name = task.name if isinstance(task, Task) else task
    if not isinstance(name, str) or not is_task_name(name):
        raise ValidationError(f"{quoted(name)} is no task", code="bad_task_name", hint="give a task, or its name")
    if count > limits.steps_per_plan:
        hint = f"at most {limits.steps_per_plan} (limits.steps_per_plan); map them in parts"
        raise ValidationError(f"a map over {count} rows", code="too_many_rows", hint=hint)
    steps = tuple(domain.Step(id=f"row-{row}", task=name, params=f"${{input[{row}]}}") for row in range(count))
    return Plan.of(domain.Plan(name=f"map {name}"[: limits.name_chars], steps=steps, parallel=True))


def checked_rows(rows: Iterable[Any]) -> list[Any]:
    """The rows, each of which can be a call's params. Raises `ValidationError` (`bad_row`)."""
    found = [*rows]
    for number, row in enumerate(found):
        if isinstance(row, str | bytes | int | float | list | tuple | set | frozenset):
            hint = "a row is the params of one call, by name: {'facility': 'north'}"
            raise ValidationError(f"row {number} is {quoted(row)}", code="bad_row", hint=hint)
    return found


Read = Callable[[Any], Any] | None
"""What makes an output what its task is annotated to return."""


def outputs_of(result: ExecutionResult, read: Read = None) -> list[Any]:
    """The outputs of a map in the order of its rows. Raises what the first failed row failed with."""
    if result.ok:
        return [task.output if read is None else read(task.output) for task in result.results]
    error = exception_of(result.execution_id, result.status, result.error)
    failed = [task.task_id for task in result.results if task.status == TaskStatus.FAILED]
    if failed:
        error.add_note(f"of {result.execution_id} failed: {', '.join(failed[:10])}{', …' if len(failed) > 10 else ''}")
    raise error


def outcomes_of(result: ExecutionResult, read: Read = None) -> list[Ok[Any] | Err]:
    """What came of each row of a map, in their order."""
    return [_outcome(task, result, read) for task in result.results]


def _outcome(task: TaskResult, result: ExecutionResult, read: Read) -> Ok[Any] | Err:
    if task.status == TaskStatus.COMPLETED and task.compensation != "completed":
        try:
            return Ok(task.output if read is None else read(task.output))
        except EsexecError as error:
            return Err(error)
    if task.error is not None:
        return Err(to_exception(task.error))
    if task.status == TaskStatus.COMPLETED:
        why = "was undone"
    else:
        why = f"was not carried out: {result.error.message}" if result.error else f"is {task.status.value}"
    return Err(ExecutionCancelled(f"{task.task_id} of {result.execution_id} {why}", execution_id=result.execution_id))


async def gathered(client: "Client", handles: Iterable[Handle[Any] | str], wait_timeout: Duration | None) -> list[Any]:
    """The outputs, in the order of the handles. Raises the first error there is; nothing is cancelled."""
    waits = [asyncio.create_task(_result(client, one, wait_timeout)) for one in handles]
    try:
        return [*await asyncio.gather(*waits)]
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def outcomes_gathered(
    client: "Client", handles: Iterable[Handle[Any] | str], wait_timeout: Duration | None
) -> list[Ok[Any] | Err]:
    """What came of each, in the order of the handles."""

    async def outcome(one: Handle[Any] | str) -> Ok[Any] | Err:
        try:
            return Ok(await _result(client, one, wait_timeout))
        except EsexecError as error:
            return Err(error)

    return [*await asyncio.gather(*[outcome(one) for one in handles])]


async def _result(client: "Client", one: Handle[Any] | str, wait_timeout: Duration | None) -> Any:
    handle = client.handle(one) if isinstance(one, str) else one
    return await handle.result(wait_timeout=wait_timeout)
