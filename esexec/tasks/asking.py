"""Asking a recovery strategy: from the dispatch to its context, and from its result to the output of that attempt."""

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain.checkpoints import StateView
from esexec.domain.errors import ExecutionError
from esexec.domain.flow import Resource
from esexec.domain.messages import Dispatch, RecoveryRequest
from esexec.domain.plan import Plan
from esexec.tasks.outputs import VARIABLE, encode_value
from esexec.tasks.recovery import RecoveryAction, RecoveryContext, RecoveryStrategy
from esexec.tasks.variables import Variables


def is_async(strategy: RecoveryStrategy) -> bool:
    """Whether it is to be asked on the loop; else in a thread."""
    call = strategy.execute if inspect.isroutine(strategy.execute) else type(strategy.execute).__call__
    return inspect.iscoroutinefunction(strategy.execute) or inspect.iscoroutinefunction(call)


async def ask(strategy: RecoveryStrategy, dispatch: Dispatch) -> dict[str, Any]:
    """What a strategy says to a dispatch of purpose `recovery`, as the output of that attempt.

    Raises what it raises, and ExecutionError `bad_recovery_result` for anything that is no result.
    """
    context, variables = _question(dispatch)
    return _outcome(await strategy.execute(context), variables)


def ask_in_thread(strategy: RecoveryStrategy, dispatch: Dispatch) -> dict[str, Any]:
    """`ask`, for a strategy whose `execute` is no coroutine."""
    context, variables = _question(dispatch)
    return _outcome(strategy.execute(context), variables)


def _question(dispatch: Dispatch) -> tuple[RecoveryContext, Variables]:
    """What the strategy gets; and the variables, of which it changes its own copy."""
    asked = dispatch.recovery
    assert isinstance(asked, RecoveryRequest)
    state = msgspec.convert(asked.state, StateView)
    before = msgspec.json.encode(state.variables)
    context = RecoveryContext(
        execution_id=dispatch.execution_id,
        step=dispatch.step,
        error=asked.error,
        state=state,
        plan=msgspec.json.decode(asked.plan, type=Plan),
        resources=[msgspec.convert(one, Resource) for one in state.resource_allocations.values()],
        recoveries=asked.recoveries,
        failed_attempt=asked.failed_attempt,
        run=dispatch.run,
    )
    return context, Variables(msgspec.json.decode(before))


def _outcome(result: Any, variables: Variables) -> dict[str, Any]:
    success, action, message = (_field(result, name) for name in ("success", "action", "message"))
    known = str(action).lower()
    if not isinstance(success, bool) or known not in _ACTIONS:
        raise ExecutionError(
            f"the strategy returned {result!r:.200}, which is no result",
            code="bad_recovery_result",
            retry=False,
            hint=f"return RecoveryResult(success, action, …); actions: {', '.join(_ACTIONS)}",
        )
    output = {"success": success, "action": known, "message": str(message or "")[: limits.text_chars]}
    news = _news(_field(result, "new_state"), variables)
    return {**output, "new_state": {"variables": news}} if news else output


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


_ACTIONS = tuple(action.value for action in RecoveryAction)


def _news(new_state: Any, variables: Variables) -> dict[str, Any]:
    """The variables of `new_state` that differ from those that were."""
    found = _field(new_state, "variables")
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ExecutionError("the variables of new_state are no mapping", code="bad_recovery_result", retry=False)
    before = {name: encode_value(value, VARIABLE) for name, value in variables.items()}
    for name, value in found.items():
        if encode_value(value, VARIABLE) != before.get(name):
            variables[name] = value
    return {name: msgspec.json.decode(data) for name, data in variables.changes().items()}
