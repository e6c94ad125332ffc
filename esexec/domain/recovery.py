"""What a recovery strategy said, and what is asked of it."""

import msgspec

from esexec.domain import limits
from esexec.domain.checkpoints import view_of
from esexec.domain.errors import ErrorInfo, ValidationError
from esexec.domain.messages import RecoveryRequest
from esexec.domain.state import ExecutionState
from esexec.domain.strategies import RecoveryOutcome

_OUTPUTS_UP_TO = 128 * 1024
"""Outputs travel with the question where the whole history is no larger than this."""


def request_of(state: ExecutionState, index: int) -> RecoveryRequest:
    """What a strategy is asked about a step whose last attempt failed."""
    step = state.steps[index]
    error = step.error or ErrorInfo(type="internal_error", code="unknown", message="it failed")
    return RecoveryRequest(
        error=error,
        failed_attempt=error.attempt or step.attempt - 1,
        recoveries=step.recoveries,
        plan=msgspec.Raw(state.created.document),
        state=view_of(state, outputs=state.weight <= _OUTPUTS_UP_TO),
    )


def outcome_of(output: object) -> RecoveryOutcome:
    """What a strategy returned. Raises `ValidationError` (`bad_recovery_result`) for anything else than an outcome."""
    try:
        outcome = msgspec.convert(output, RecoveryOutcome)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValidationError(
            f"the recovery strategy returned no result: {error}",
            code="bad_recovery_result",
            hint="an object with success, action and message; see RecoveryResult",
        ) from None
    return msgspec.structs.replace(outcome, message=outcome.message[: limits.text_chars])


def vars_too_large(state: ExecutionState, news: dict[str, object]) -> bool:
    """Whether the execution's variables would outgrow their limit with these."""
    return len(msgspec.json.encode(state.variables | news)) > limits.vars_bytes
