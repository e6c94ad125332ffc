"""What a client raises on its own account, said in one place."""

from esexec.domain.errors import AwaitTimeout, NotFound, Unavailable, ValidationError
from esexec.domain.state import ExecutionState


def not_found(execution_id: str) -> NotFound:
    """What to raise for an execution that has no history."""
    return NotFound(f"no execution {execution_id} is known", hint="check the id and the namespace")


def not_open() -> ValidationError:
    """What to raise for a client that is used outside of its `async with`."""
    hint = "async with esexec.connect(url) as client: …"
    return ValidationError("the client is not open", code="not_open", hint=hint)


def closed() -> Unavailable:
    """What to raise for whoever waits for a client that is closed meanwhile."""
    return Unavailable("the client was closed while somebody waited", code="closed")


def too_late(state: ExecutionState, wait_timeout: float | None) -> AwaitTimeout:
    """What to raise for an execution that has not ended when the caller's patience has."""
    if not state.exists:
        hint = "check the id and the namespace; if it was started just now: is an executor running? (esexec executor)"
        return AwaitTimeout(f"there is no execution {state.execution_id} yet, after {wait_timeout:g} s", hint=hint)
    message = f"{state.execution_id} has not ended within {wait_timeout:g} s"
    return AwaitTimeout(message, hint="it goes on; wait again, or for ever with wait_timeout=None")
