"""What hooks are told of an attempt (`esexec.telemetry`): that its handler begins, and how it ended.

A `Tale` is made only where somebody listens. It is told to those who were attached when it began, and only as long as they
are: so a hook hears the end of what it heard begin, and of nothing else. All of it on the worker's loop.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from esexec import telemetry
from esexec.domain.errors import ErrorInfo, ErrorType
from esexec.worker.attempt import Attempt, Why
from esexec.world import now

Kind = Literal["error", "timeout", "cancelled", "handed_back"]
"""How a handler ended that did not do its work."""

_STOPPED: dict[Why, tuple[Kind, ErrorType, str, str]] = {
    "timeout": ("timeout", "timeout_error", "task_timeout", "the attempt ran past its timeout"),
    "cancelled": ("cancelled", "execution_error", "cancelled", "the attempt was told to stop"),
    "draining": ("handed_back", "execution_error", "handed_back", "the worker ended, and handed the attempt back"),
}
"""Why a handler was told to stop → how that is told: kind, and type, code and message of the error."""


class Tale:
    """One attempt, as it is told. Times ending in `_mono` are seconds of the monotonic clock."""

    __slots__ = ("_hooks", "_metadata", "_started_mono")

    def __init__(self, hooks: tuple[telemetry.Hook, ...], attempt: Attempt, worker: str) -> None:
        """Tells that the handler begins."""
        assert attempt.started_at is not None
        dispatch = attempt.dispatch
        self._hooks, self._started_mono = hooks, attempt.started_mono
        self._metadata: dict[str, Any] = {
            "task": dispatch.task,
            "action": dispatch.task,
            "params": msgspec.to_builtins(dispatch.params),  # as they are now: the handler may change its own
            "execution_id": dispatch.execution_id,
            "step": dispatch.step,
            "attempt": dispatch.attempt,
            "run": dispatch.run,
            "worker": worker,
            "purpose": dispatch.purpose,
        }
        times = {"system_time": attempt.started_at.timestamp(), "monotonic_time": attempt.started_mono}
        telemetry.tell(hooks, "exec.start", times, self._metadata, _copied)

    def end(self, ended_mono: float, *, error: ErrorInfo | None = None, why: Why | None = None) -> None:
        """Tells how it ended: with an error, because it was told to (`why`), or well."""
        duration = max(0.0, ended_mono - self._started_mono)
        took = {"duration": duration, "duration_ms": duration * 1000}
        if error is None and why is None:
            telemetry.tell(self._hooks, "exec.stop", took, self._metadata, _copied)
            return
        kind: Kind = "error"
        if error is None:
            kind, wire_type, code, message = _STOPPED[why or "cancelled"]
            step, attempt = self._metadata["step"], self._metadata["attempt"]
            error = ErrorInfo(type=wire_type, code=code, message=message, task_id=step, attempt=attempt, timestamp=now())
        telemetry.tell(self._hooks, "exec.exception", took, {**self._metadata, "error": error, "kind": kind}, _copied)


def _copied(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata that a hook can change without anybody else seeing it."""
    copied = {**metadata, "params": msgspec.to_builtins(metadata["params"])}
    error: ErrorInfo | None = metadata.get("error")
    if error is not None:
        copied["error"] = msgspec.structs.replace(error, context=msgspec.to_builtins(error.context))
    return copied
