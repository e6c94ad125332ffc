"""What can be told of executions besides their results: how one went in numbers, what happened, where the time went.

Values only; they are computed from a history in `projections` (`metrics`, `timeline`, `gantt`). Times are UTC, durations
milliseconds; None where there is nothing to tell (yet).
"""

from datetime import datetime
from typing import Literal

import msgspec

from esexec.domain.events import Event
from esexec.domain.messages import Purpose


class ExecutionMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """An execution in numbers, over all its runs, as of `as_of`.

    `total_duration_ms`: from its first start to its last end, or until now; 0 before it started. `effective_duration_ms`: of
    that, the time in which at least one handler ran; the rest was spent in queues, pauses, back-off, or between its end and a
    retry. `efficiency`: the part of the total that was effective, 0 to 1.

    `attempts`: those that ended, of steps, of their fallbacks and of compensations; `failed_attempts`: of them, those that failed
    or timed out; `error_rate`: the part that did, 0 to 1. `success_rate`: completed steps of those that ended, as they stand
    now, 0 to 1. `throughput`: completed steps per second of the total.

    `total_cost`: what handlers said they cost, and what was paid for resources. `resource_efficiency`: of the time for which
    resources were held, the part in which the work itself went on, each weighed by its cost (by its time, if nothing cost
    anything), 0 to 1. `quality_score`: the mean of the qualities that handlers reported, 0 to 1.
    """

    as_of: datetime
    total_duration_ms: int
    effective_duration_ms: int
    total_cost: float
    efficiency: float | None
    success_rate: float | None
    error_rate: float | None
    throughput: float | None
    resource_efficiency: float | None
    quality_score: float | None
    attempts: int
    failed_attempts: int


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `n` and `version` number its commit and itself; `offset_ms` counts from the first commit.

    `step` and `attempt` are None for what concerns the whole execution. `actor`: who gave the command that this is of, if it is
    of one and that was said. `description` may hold whatever a handler said.
    """

    time: datetime
    offset_ms: int
    n: int
    version: int
    type: str
    step: str | None = None
    attempt: int | None = None
    description: str
    actor: str | None = None
    event: Event


SpanKind = Literal["back_off", "waiting", "queued", "held", "running"]
"""What an attempt spends time with: the delay before a retry; a rate limit, a concurrency key or resources; the queue of its
workers; a pause of the execution; its handler. Of an execution: its start, a slot (`queued`), a pause (`held`)."""
Outcome = Literal["completed", "cached", "failed", "timed_out", "cancelled", "abandoned"]
"""How an attempt ended; `abandoned`: nobody waits for it any more."""


class Span(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """Some time, and what it was spent with. `end` None: it goes on.

    Of an attempt: `back_off`, the delay before a retry; `waiting` for what it must be granted, `by` says for what (`rate_limit`,
    `concurrency`, `resources`); `queued`, for a worker; `held`, by a pause of the execution; `running`, its handler. Of an
    execution: `queued`, until its start or for a slot of its concurrency key; `held`, by a pause.
    """

    kind: SpanKind
    start: datetime
    end: datetime | None = None
    by: str = ""


class Bar(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """One attempt, as a row of a Gantt chart: its spans, in order.

    `outcome`: `completed`, `cached` (the output was found, no handler ran), `failed`, `timed_out`, `cancelled`, or `abandoned`:
    nobody waits for it any more; None: it is open.
    """

    step: str
    attempt: int = 1
    run: int = 1
    purpose: Purpose = "task"
    worker: str = ""
    outcome: Outcome | None = None
    spans: tuple[Span, ...] = ()


class Gantt(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of an execution went: from `start`, its creation, to `end`, its end or (`as_of`) now.

    `execution`: what it waited for as a whole. `bars`: its attempts, in the order in which they began to count.
    """

    execution_id: str
    start: datetime
    end: datetime
    as_of: datetime
    execution: list[Span]
    bars: list[Bar]


class Durations(msgspec.Struct, omit_defaults=True, frozen=True, kw_only=True):
    """How long things took in the past, in milliseconds: the means over the steps of a plan that completed; `runs`: how many of
    its executions did.

    `steps`: by step, from the start of its first attempt to the end of its last, retries and their delays included. `tasks`: the
    same by task, of all plans, for steps that never ran. `overhead_ms`: what a step takes besides, between the moment it is
    scheduled (no more waits for it than a worker) and the moment it is settled in the log.
    """

    steps: dict[str, float] = {}
    tasks: dict[str, float] = {}
    overhead_ms: float = 0.0
    runs: int = 0
