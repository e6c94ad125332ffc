"""Chains: tasks one after the other, of which each gets what the one before gave.

A chain is a plan with a step per link, and with one behind each link that asks a task whether to go on. Only where a function of
this program is to be asked, the client goes from link to link itself: then each link is an execution, and the chain ends with the
program.
"""

import asyncio
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from esexec.client.commands import StartOptions, checked_id
from esexec.client.times import patience
from esexec.domain import limits
from esexec.domain import plan as domain
from esexec.domain.errors import AwaitTimeout, ChainError, ValidationError
from esexec.domain.explain import quoted
from esexec.domain.ids import is_task_name, token_from
from esexec.plans import Duration, Plan
from esexec.results import ExecutionResult, TaskStatus
from esexec.tasks import Continue, Halt, Returns, Task
from esexec.world import new_id

if TYPE_CHECKING:
    from esexec.client.client import Client

Interrupt = Returns[Any] | str | Callable[[Any, Mapping[str, Any]], Any]
"""What is asked between two links: a task, or its name, or a condition such as `${result.blocked}`; or a function of this
program, called with the result and the context: async, or not, and then in a thread."""

_CONDITION = re.compile(r"(?P<negated>(?:not\s+)?)\$\{\s*result(?P<path>[^}]*)\}")


class Link(msgspec.Struct, frozen=True):
    """A link of a chain: the task, and params that are laid over those that flow. Made by `link`."""

    task: Returns[Any] | str
    params: dict[str, Any] = {}


LinkLike = Link | Returns[Any] | str | tuple[Returns[Any] | str, Mapping[str, Any]]
"""A link as one writes it: the task, or the task with params of its own."""


def link(task: Returns[Any] | str, /, **params: Any) -> Link:
    """A link of a chain, with params of its own: `link("process", format="json")`. They win over those that flow."""
    return Link(task, params)


class ChainResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a chain that did not fail. `value`: of its last link, or what it was halted with.

    `halted_after`: the link behind which it was halted, by its id: the task's name, with a number from the second of that name
    on. `interrupted`: halted by a condition or a predicate, not with a value. `results`: what each link gave, by its id.
    `executions`: their ids; more than one where a function of this program was asked.
    """

    value: Any
    halted: bool = False
    halted_after: str | None = None
    interrupted: bool = False
    results: dict[str, Any] = {}
    executions: tuple[str, ...] = ()


class Chain:
    """The links and their ids. Raises ValidationError: `empty_chain`, `bad_link`."""

    def __init__(self, links: Sequence[LinkLike]) -> None:
        if isinstance(links, str) or not isinstance(links, Sequence) or not links:
            raise ValidationError(f"{quoted(links)} is no chain", code="empty_chain", hint="give a list of at least one link")
        self.links = [_read(link, number) for number, link in enumerate(links)]
        self._taken: set[str] = set()
        self.ids = [self._named(token_from(name)) for name, _ in self.links]

    def _named(self, token: str) -> str:
        """An id that nothing else in the chain has."""
        base, name, number = token[: limits.id_chars - 8], token, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name

    # As one plan -----------------------------------------------------------------------------------------------------------

    def plan(self, interrupt: str | None) -> tuple[Plan, list[str]]:
        """The plan, and the ids of the steps that ask, one behind each link but the last (none, where a condition asks).

        Raises PlanInvalid for params of links that refer to what is not there.
        """
        steps: list[domain.Step] = []
        asking: list[str] = []
        flow, when = "${input}", None
        for (task, extra), name in zip(self.links, self.ids, strict=True):
            steps.append(domain.Step(id=name, task=task, params={"...": flow, **extra} if extra else flow, when=when))
            flow = f"${{steps.{name}.output}}"
            if interrupt is None or len(steps) == len(self.links) + len(asking):
                continue
            if "${" in interrupt:
                when = _halted_unless(interrupt, name)
                continue
            asking.append(self._named(f"after-{name}"[: limits.id_chars]))
            steps.append(domain.Step(id=asking[-1], task=interrupt, params={"result": flow}))
            flow, when = f"${{steps.{asking[-1]}.output.value}}", f"not ${{steps.{asking[-1]}.output.halt}}"
        named = " → ".join(task for task, _ in self.links)
        return Plan.of(domain.Plan(name=named[: limits.name_chars], steps=tuple(steps))), asking

    def result_of(self, result: ExecutionResult, asking: list[str]) -> ChainResult:
        """What came of the plan. Raises ChainError, or what a cancelled execution raises."""
        there = result.partial_results
        results = {name: there[name] for name in self.ids if name in there}
        if not result.ok:
            self._fail(result, asking, results)
        past = [name for name in self.ids if result.step(name).status == TaskStatus.COMPLETED]
        halted = len(past) < len(self.ids)
        value: Any = there.get(past[-1]) if past else None
        if halted and asking:
            value = there[asking[len(past) - 1]]["value"]
        return ChainResult(
            value=value,
            halted=halted,
            halted_after=past[-1] if halted else None,
            interrupted=halted and not asking,
            results=results,
            executions=(result.execution_id,),
        )

    def _fail(self, result: ExecutionResult, asking: list[str], results: dict[str, Any]) -> None:
        failed = next((task for task in result.results if task.status == TaskStatus.FAILED and task.error is not None), None)
        if failed is None or failed.error is None or result.status == "cancelled":
            result.unwrap()
            return
        name = self.ids[asking.index(failed.task_id)] if failed.task_id in asking else failed.task_id
        raise ChainError(name, failed.error, results)


async def chained(
    client: "Client",
    links: Sequence[LinkLike],
    params: Any,
    interrupt: Interrupt | None,
    wait_timeout: Duration | None,
    options: StartOptions,
) -> ChainResult:
    """See `Client.chain`."""
    chain, asked = Chain(links), _asked(interrupt)
    given = {} if params is None else params
    if asked is None or isinstance(asked, str):
        plan, asking = chain.plan(asked)
        return chain.result_of(await client.execute(plan, given, wait_timeout=wait_timeout, **options), asking)
    return await _Walk(client, chain, asked, wait_timeout, options).through(given)


class _Walk:
    """A chain that the client goes along itself."""

    def __init__(
        self, client: "Client", chain: Chain, interrupt: Callable[..., Any], wait_timeout: Duration | None, options: StartOptions
    ) -> None:
        self._client, self._chain, self._interrupt, self._options = client, chain, interrupt, options
        wait_s = patience(wait_timeout)
        self._until = None if wait_s is None else asyncio.get_running_loop().time() + wait_s
        self._id = checked_id(options.get("execution_id") or new_id())
        self._executions: list[str] = []
        self._results: dict[str, Any] = {}

    async def through(self, value: Any) -> ChainResult:
        chain = self._chain
        for number, name in enumerate(chain.ids):
            value = self._results[name] = await self._carry_out(number, value)
            if number == len(chain.ids) - 1:
                break
            answer = await self._ask(value)
            if isinstance(answer, Halt):
                if answer.error is not None:
                    raise ChainError(name, answer.error.info, self._results)
                return self._result(answer.value, halted_after=name)
            if answer is True:
                return self._result(value, halted_after=name, interrupted=True)
            if isinstance(answer, Continue):
                value = answer.value
            elif answer is not None and answer is not False:
                hint = "return Halt(value), Continue(value); True to halt, False or nothing to go on"
                raise ValidationError(f"the interrupt gave {quoted(answer)}", code="bad_interrupt", hint=hint)
        return self._result(value)

    def _result(self, value: Any, **fields: Any) -> ChainResult:
        halted = "halted_after" in fields
        return ChainResult(value=value, halted=halted, results=self._results, executions=tuple(self._executions), **fields)

    async def _carry_out(self, number: int, value: Any) -> Any:
        (task, extra), name = self._chain.links[number], self._chain.ids[number]
        step = domain.Step(id=name, task=task, params={"...": "${input}", **extra} if extra else "${input}")
        plan = Plan.of(domain.Plan(name=task, steps=(step,)))
        said: dict[str, Any] = {**self._options, "execution_id": f"{self._id}-{number}"}
        said["metadata"] = {**(said.get("metadata") or {}), "chain": self._id, "link": name}
        if said.get("idempotency_key") is not None:
            said["idempotency_key"] = f"{said['idempotency_key']}/{number}"
        result = await self._client.execute(plan, value, wait_timeout=self._left(), **cast(StartOptions, said))
        self._executions.append(result.execution_id)
        error = result.step(name).error
        if result.status != "cancelled" and error is not None and not result.ok:
            raise ChainError(name, error, self._results)
        return result.unwrap()

    def _left(self) -> float | None:
        if self._until is None:
            return None
        left = self._until - asyncio.get_running_loop().time()
        if left <= 0:
            raise AwaitTimeout("the chain has not ended in time", hint="what has begun goes on; no further link begins")
        return left

    async def _ask(self, value: Any) -> Any:
        context = dict(self._options.get("context") or {})
        if inspect.iscoroutinefunction(self._interrupt):
            return await self._interrupt(value, context)
        answer = await asyncio.to_thread(self._interrupt, value, context)
        return await answer if inspect.isawaitable(answer) else answer


# Reading ---------------------------------------------------------------------------------------------------------------


def _read(link: LinkLike, number: int) -> tuple[str, dict[str, Any]]:
    """A link as its task's name and its own params."""
    if isinstance(link, Link):
        task, extra = link.task, link.params
    elif isinstance(link, tuple) and len(link) == 2 and isinstance(link[1], Mapping):
        task, extra = link[0], dict(link[1])
    else:
        task, extra = cast(str, link), {}
    name = task.name if isinstance(task, Task) else task
    if not isinstance(name, str) or not is_task_name(name):
        hint = 'a task, its name, ("name", {"format": "json"}), or link("name", format="json")'
        raise ValidationError(f"link {number} of the chain is {quoted(link)}", code="bad_link", hint=hint)
    return name, extra


def _asked(interrupt: Interrupt | None) -> str | Callable[..., Any] | None:
    """The name of a task, a condition, or a function. Raises ValidationError (`bad_interrupt`)."""
    if isinstance(interrupt, Task):
        return interrupt.name
    if interrupt is None or (isinstance(interrupt, str) and ("${" in interrupt or is_task_name(interrupt))):
        return interrupt
    if not isinstance(interrupt, str) and callable(interrupt):
        return interrupt
    hint = "a task, its name, ${result.blocked}, or a function of the result and the context"
    raise ValidationError(f"{quoted(interrupt)} interrupts nothing", code="bad_interrupt", hint=hint)


def _halted_unless(condition: str, name: str) -> str:
    """What the next link's `when` is, so that it is not done where the condition holds for the result of this one."""
    found = _CONDITION.fullmatch(condition.strip())
    if found is None:
        hint = "one reference to the result, ${result.blocked}, or not and one"
        raise ValidationError(f"{quoted(condition)} is no condition", code="bad_interrupt", hint=hint)
    return f"{'' if found['negated'] else 'not '}${{steps.{name}.output{found['path']}}}"
