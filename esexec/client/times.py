"""When a start may begin and must have ended: times with their offset, durations from now, and what a handler hands on; and
how long a caller waits."""

from datetime import UTC, datetime, timedelta
from typing import Any

from esexec.domain.durations import milliseconds
from esexec.domain.errors import ValidationError
from esexec.plans import Duration
from esexec.tasks import current_context
from esexec.world import now

_PATIENCE_HINT = 'seconds, or with a unit as "30s", 0 or more; None to wait for ever'
_NOTHING: dict[str, Any] = {}


def of_start(
    start_at: datetime | None, delay: Duration | None, deadline: datetime | Duration | None, *, waits: bool
) -> dict[str, Any]:
    """The fields of a start that concern time, and the step whose handler it is given in. `waits`: the caller waits for its end.

    Raises `ValidationError`: `naive_time`, `start_at_and_delay`, `invalid_duration`.
    """
    context = current_context()
    if start_at is None and delay is None and deadline is None and context is None:
        return _NOTHING
    if start_at is not None and delay is not None:
        raise ValidationError("a start has either start_at or delay", code="start_at_and_delay", hint="leave one of them out")
    said: dict[str, Any] = {}
    if start_at is not None:
        said["start_at"] = checked_time("start_at", start_at)
    if delay is not None:
        said["delay_ms"] = milliseconds(delay, name="delay")
    ends = [end for end in [_deadline(deadline)] if end is not None]
    if context is not None:
        said["parent"] = f"{context.execution_id}/{context.step}"
        ends += [end for end in (context.execution_deadline, context.deadline if waits else None) if end is not None]
    if ends:
        said["deadline"] = min(ends)
    return said


def patience(wait_timeout: Duration | None) -> float | None:
    """How many seconds a caller waits; None: for ever. Raises `ValidationError` (`invalid_duration`)."""
    if wait_timeout is None:
        return None
    try:
        return milliseconds(wait_timeout, name="wait_timeout") / 1000
    except ValidationError as error:
        error.hint = _PATIENCE_HINT
        raise


def _deadline(value: datetime | Duration | None) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return None if value is None else checked_time("deadline", value)
    left_ms = milliseconds(value, name="deadline")
    return now() + timedelta(milliseconds=left_ms) if left_ms else None


def checked_time(name: str, value: datetime) -> datetime:
    """The time in UTC. Raises `ValidationError`: `invalid_time`, `naive_time`."""
    if not isinstance(value, datetime):
        raise ValidationError(f"{name} is no time: {value!r:.80}", code="invalid_time", hint="give a datetime with its time zone")
    if value.utcoffset() is None:
        raise ValidationError(
            f"{name} {value:%Y-%m-%d %H:%M:%S} has no time zone",
            code="naive_time",
            hint="datetime.now(UTC) + …, or .astimezone() to mean this machine's time",
        )
    return value.astimezone(UTC)
