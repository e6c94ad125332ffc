"""What is too large for a message, on the client's side: stored before the command that needs it is published, and put into its
place in what is read. See `esexec.nats.objects`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from esexec.client.commands import encode_value
from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.errors import CorruptHistory
from esexec.domain.objects import ObjectRef
from esexec.log import codec
from esexec.log.port import Stored
from esexec.log.verify import Verification, verify
from esexec.nats.objects import Objects
from esexec.results import Err, ExecutionResult, Ok, Pending


async def with_objects(objects: Objects, command: c.StartExecution) -> c.StartExecution:
    """The start with its plan and its input as objects where they are too large; these are stored. Raises `Unavailable`."""
    if len(plan := bytes(command.plan)) > limits.plan_bytes:
        command = msgspec.structs.replace(command, plan=c.NO_PLAN, plan_object=await objects.put(plan))
    if len(given := encode_value(command.input)) > limits.input_bytes:
        command = msgspec.structs.replace(command, input=None, input_object=await objects.put(given))
    return command


async def fill(objects: Objects, result: ExecutionResult) -> ExecutionResult:
    """The result with the values of its objects in their place: the input, the output, and those of its steps, as far as these
    have no more than `limits.outputs_bytes` together; of others the `ObjectRef` is left. Raises `CorruptHistory`,
    `Unavailable`."""
    values: dict[str, Any] = {}

    async def opened(value: Any) -> Any:
        if not isinstance(value, ObjectRef):
            return value
        if value.sha256 not in values:
            values[value.sha256] = await objects.value(value)
        return values[value.sha256]

    result.input = await opened(result.input)
    if isinstance(result.result, dict):
        result.result = {key: await opened(value) for key, value in result.result.items()}
    else:
        result.result = await opened(result.result)
    left = limits.outputs_bytes
    for task in result.results:
        if isinstance(task.output, ObjectRef):
            left -= task.output.bytes if task.output.sha256 not in values else 0
            if left >= 0 or task.output.sha256 in values:
                task.output = await opened(task.output)
    return result


async def filled(objects: Objects, outcome: Pending | Ok | Err) -> Pending | Ok | Err:
    """The same of a three-way view."""
    if not isinstance(outcome, Ok):
        return outcome
    value = outcome.value
    if isinstance(value, ObjectRef):
        return Ok(await objects.value(value))
    if isinstance(value, dict) and any(isinstance(one, ObjectRef) for one in value.values()):
        return Ok({key: await objects.value(one) if isinstance(one, ObjectRef) else one for key, one in value.items()})
    return outcome


def refs_in(history: Iterable[Stored]) -> dict[ObjectRef, int]:
    """The objects that a history refers to, and the commit that does so first. Raises `CorruptHistory`."""
    found: dict[ObjectRef, int] = {}
    for stored in history:
        if b'_object":{' not in stored.data and b'_objects":{' not in stored.data:
            continue
        commit = codec.decode(stored.data)
        for event in commit.events:
            refs: list[ObjectRef | None] = []
            if isinstance(event, e.ExecutionCreated):
                refs = [event.plan_object, event.input_object, *event.kept_objects.values()]
            elif isinstance(event, e.PlanStored):
                refs = [event.plan_object]
            elif isinstance(event, e.TaskCompleted):
                refs = [event.output_object]
            for ref in refs:
                if ref is not None:
                    found.setdefault(ref, commit.n)
    return found


async def verified(objects: Objects, entity: str, history: Sequence[Stored]) -> Verification:
    """Whether a history is whole, and all objects that it refers to are there, and what their names say. Raises `Unavailable`."""
    found = verify(entity, history)
    if not found.ok:
        return found
    for ref, n in refs_in(history).items():
        try:
            await objects.read(ref)
        except CorruptHistory as error:
            return msgspec.structs.replace(found, ok=False, commit=n, problem=error.message)
    return found
