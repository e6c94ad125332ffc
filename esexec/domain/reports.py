"""What was observed of an attempt, or came due: the messages of INBOX that a decision is made of.

A report travels on `esexec.<ns>.in.<execution>.report.<queue>.<step>.<run>-<attempt>`: which attempt it is about stands in
the subject, so that even a body that cannot be read belongs to an attempt.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from esexec.domain.cached import CachedFrom
from esexec.domain.errors import ErrorInfo
from esexec.domain.events import Ending
from esexec.domain.measures import Measured
from esexec.domain.objects import ObjectRef

Time = Annotated[datetime, Meta(tz=True)]
"""With its offset from UTC: two times without one could not be compared with those that have it."""


class AnyReport(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True, frozen=True, gc=False):
    """What all reports have."""

    worker: str = ""


class Started(AnyReport, tag="started", frozen=True, kw_only=True):
    """The handler began. On its own for what runs longer than `limits.started_report_after_ms`; before all else where one loss
    more would be one too many."""

    started_at: Time


class Completed(AnyReport, tag="completed", frozen=True, kw_only=True):
    """The handler returned. `vars`: the execution's variables that it set. `measured`: what it measured of itself.

    `cached`: no handler ran, the output is one that was returned before; it was found at `started_at`. `output_object`: in the
    place of an output that is kept as an object, which is there before it is reported. `directive`: what the handler said beside
    its output.
    """

    started_at: Time
    ended_at: Time
    output: Any = None
    output_object: ObjectRef | None = None
    vars: dict[str, Any] = {}
    measured: Measured | None = None
    cached: CachedFrom | None = None
    directive: Any = None


class Failed(AnyReport, tag="failed", frozen=True, kw_only=True):
    """The handler raised, or could not be called (then without `started_at`). `vars`, `measured`: as in `Completed`."""

    error: ErrorInfo
    started_at: Time | None = None
    ended_at: Time | None = None
    vars: dict[str, Any] = {}
    measured: Measured | None = None


class Rejected(AnyReport, tag="rejected", frozen=True, kw_only=True):
    """The worker does not have the task that it was handed. Whatever `error` says of it, it is not tried again."""

    error: ErrorInfo
    ended_at: Time | None = None


class TimedOut(AnyReport, tag="timed_out", frozen=True, kw_only=True):
    """The handler was ended at its timeout; `ended` says how."""

    started_at: Time
    ended_at: Time
    ended: Ending
    measured: Measured | None = None


class Stopped(AnyReport, tag="stopped", frozen=True, kw_only=True):
    """The handler was ended because its execution was cancelled or its attempt is closed; or it had not begun.

    `losses`: holders before this one that were lost, of which nobody knows what they did.
    """

    losses: int = 0
    started_at: Time | None = None
    ended_at: Time | None = None
    ended: Ending | None = None
    measured: Measured | None = None


class Lost(AnyReport, tag="lost", frozen=True, kw_only=True):
    """The dispatch came to a worker again: `losses` holders before it were lost, or gave it back."""

    losses: int


class Withdrawn(AnyReport, tag="withdrawn", frozen=True, kw_only=True):
    """The dispatch was taken back before any worker had it (sent by executors). `pause`: the version of the pause it was for."""

    pause: int = 0


class Before(AnyReport, tag="before", frozen=True, kw_only=True):
    """What something was before the handler changes it, for its undoing. The first image of a step stands.

    Answered on `live.<execution>.before` with the image that stands, once it is in the history; sent again until it is.
    """

    image: Any = None


Report = Started | Completed | Failed | Rejected | TimedOut | Stopped | Lost | Withdrawn | Before


class Due(msgspec.Struct, frozen=True, gc=False):
    """A timer fired. `name` is the version of the event that set it. Believed by identity, not by the clock.

    `LOOK` as the name: an executor set it, to look again where an open attempt is.
    """

    name: str


LOOK = "look"


class Continue(msgspec.Struct, frozen=True, gc=False):
    """The decision of commit `after` was cut at its limits; decide the rest."""

    after: int = 0


class Nudge(msgspec.Struct, frozen=True, gc=False):
    """Repeat everything that is open: dispatches, timers, the rest of a cut decision. Changes nothing by itself."""
