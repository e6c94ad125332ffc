"""What an execution is at a moment: its state, as a pure function of its history. `evolve` is the only way to it.

Anything here that hangs on a state (`ready`, `doomed`, `cursor`) is an index into it that may hold entries already dealt with;
`advance` skips those. What outlives a run of the execution (images, what can be undone, past completions) stands in tables of
its own, by step, for a new run begins with fresh steps.
"""

from collections import deque
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.errors import ErrorInfo
from esexec.domain.flow import Resource
from esexec.domain.graph import Graph
from esexec.domain.measures import Measured
from esexec.domain.messages import Purpose
from esexec.domain.settings import (
    BUILT_IN,
    BUILT_IN_EXECUTION,
    EMPTY_CONFIG,
    EMPTY_NAMESPACE,
    ExecutionPolicy,
    Policy,
    TaskSettings,
    merge_in,
)
from esexec.domain.sharing.requests import Gate

ExecutionStatus = Literal["pending", "running", "paused", "completed", "failed", "cancelled", "rolled_back"]
Phase = Literal["queued", "executing", "failing", "cancelling", "rolling_back", "ended"]
StepStatus = Literal["pending", "running", "completed", "failed", "skipped", "cancelled", "rate_limited"]
TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled", "rolled_back"})
SETTLED: frozenset[str] = frozenset({"completed", "failed", "skipped", "cancelled"})

TimerKind = Literal["start", "retry", "queue", "deadline", "checkpoint", "grace"]
HELD_BY_A_PAUSE: frozenset[str] = frozenset({"start", "retry", "queue"})
"""Timers that have no effect while the execution is paused, and are set again when it is resumed."""


NOTHING: Any = MappingProxyType({})
"""What the tables of a state are that most executions never fill: one for all of them, which nobody can write to."""


NOBODY: Any = ()
"""The same of a queue."""


class Timer(NamedTuple):
    """A delay that is open. Its name is the version of the event that set it. `since`: when a queue timer was set."""

    kind: TimerKind
    due: datetime
    step: int = -1
    since: datetime | None = None


class Checkpoint(NamedTuple):
    """A state that has a name. `version`: of the event that made it, `n` its commit; what came before belongs to it.

    `before`: the checkpoint before it in the line of runs that it stands in.
    """

    id: str
    version: int
    n: int
    time: datetime
    by: e.CheckpointBy
    metadata: dict[str, Any]
    before: str | None


class Lane(NamedTuple):
    """An attempt of a run that is over, which nobody waits for, and where it was handed out."""

    step: int
    run: int
    attempt: int
    queue: str
    priority: int


class Admission(msgspec.Struct, gc=False):
    """What the open attempt of `step` must be granted. `asks`: what is missing, in order; the first was asked for at `asked_at`.

    `granted`: the commits of the grants that it was given. `held`: the entities that are to be told when it is done. `resources`:
    what it was allocated, at `since`. `waiting`: it is known to wait for the first of `asks`, in any case until `until`.
    """

    step: int
    asks: tuple[Gate, ...]
    asked_at: datetime
    granted: dict[Gate, int] = {}
    held: tuple[str, ...] = ()
    resources: tuple[Resource, ...] = ()
    since: datetime | None = None
    waiting: bool = False
    until: datetime | None = None


class Slot(msgspec.Struct, gc=False):
    """The slot of a concurrency key that a run asked for at `asked_at`. `granted`: the commit that says so; 0 = it waits."""

    entity: str
    run: int
    asked_at: datetime
    granted: int = 0


class Holding(NamedTuple):
    """A grant that is to be given back, or a request to be withdrawn: of which entity, and who asked (`_` = the execution)."""

    entity: str
    step: str
    attempt: str


class Leftover(NamedTuple):
    """Resources of an attempt that is over: they are to be released, and their use told."""

    step: int
    run: int
    attempt: int
    resources: tuple[Resource, ...]
    since: datetime
    busy_s: float


DeedKey = tuple[int, str | None, int]
"""What is undone at most once: what a step, or its fallback (its task), did in a run."""


class Deed(msgspec.Struct, frozen=True, gc=False):
    """What an attempt of a step did, for its undoing: when it ended (`since`, a version), in which run, and what it had and gave.

    `fallback`: the task that did it in the step's stead. `certain`: it completed; else nobody knows whether it did its work.
    `inputs`: the outputs that its params refer to, of `graph.uses`.
    """

    step: int
    fallback: str | None
    run: int
    since: int
    certain: bool
    output: Any
    inputs: tuple[Any, ...]

    @property
    def key(self) -> DeedKey:
        return self.step, self.fallback, self.run


class StepState(msgspec.Struct, gc=False):
    """A step's life within a run. `open`: an attempt was scheduled and its outcome is not known; `purpose`: what it is for.
    `opened`: the commit that scheduled it, or a resume's that freed it: the one to hand it out.

    `waiting`: dependencies not completed. `tries`: attempts of the present purpose, `scheduled`: of the step's own work.
    `started_time` is the log's time of the start, `started_at` the worker's own; only the first is used for decisions.
    `timer`, `delay_ms`: the version and delay of the last retry timer. `queue_timer`: of the open attempt's waiting; `overdue`:
    that is over, and the attempt is being taken back. `held`: nobody has it, and nobody gets it: it was scheduled during a pause,
    or a pause took it back, or the commit that was to hand it out also stopped it. `inputs`: the outputs of other steps that
    the attempt's params refer to. `deed`: what completed it. `closed`: the commits that closed its attempts. `settled`: the
    version that settled it. `gate`: what the open attempt must be granted; None: nothing. `fallback`: the task that does its
    work since its own failed. `compensator`: the task that undoes it, `undo_error`: why that failed. `measured`: by its attempts,
    in this run. `cached`: where its output is from, if no handler ran. `directive`: what its handler said beside its output.
    """

    waiting: int = 0
    status: StepStatus = "pending"
    attempt: int = 0
    open: bool = False
    opened: int = 0
    purpose: Purpose = "task"
    tries: int = 0
    scheduled: int = 0
    worker: str = ""
    first_started_at: datetime | None = None
    started_at: datetime | None = None
    started_time: datetime | None = None
    ended_at: datetime | None = None
    output: Any = None
    error: ErrorInfo | None = None
    next_retry_at: datetime | None = None
    timer: int = 0
    delay_ms: int = 0
    queue_timer: int = 0
    overdue: bool = False
    held: bool = False
    inputs: tuple[Any, ...] = ()
    deed: Deed | None = None
    closed: list[int] = []
    settled: int = 0
    skip_reason: e.SkipReason | None = None
    because: str | None = None
    timed_out: int = 0
    fallback: str | None = None
    recovery: e.RecoveryInitiated | None = None
    recoveries: int = 0
    compensation: Literal["running", "completed", "failed", "skipped"] | None = None
    compensator: str | None = None
    undo_error: ErrorInfo | None = None
    gate: Admission | None = None
    was_rate_limited: bool = False
    measured: Measured | None = None
    cached: e.TaskCacheHit | None = None
    directive: Any = None

    @property
    def asking(self) -> bool:
        """Whether the open attempt waits for a grant."""
        return self.gate is not None and bool(self.gate.asks)

    def closed_by(self, attempt: int) -> int:
        """The commit that closed an attempt; 0 = none did."""
        return self.closed[attempt - 1] if 0 < attempt <= len(self.closed) else 0

    @property
    def retries(self) -> int:
        """How often the step's own work was tried again in this run. The first attempt of its fallback is none of those."""
        return max(0, self.scheduled - (1 if self.fallback is None else 2))

    @property
    def done(self) -> bool:
        """Whether its dependents may go on."""
        return self.status == "completed" or self.skip_reason == "recovery"


class Rollback(msgspec.Struct, gc=False):
    """A rollback under way. `order`: what to undo; what stands before `cursor` has been dealt with."""

    order: list[Deed]
    cursor: int = 0
    undone: int = 0
    failed: list[int] = []
    skipped: list[int] = []

    @property
    def next(self) -> int | None:
        """The step whose turn it is to be undone."""
        return self.order[self.cursor].step if self.cursor < len(self.order) else None


class ExecutionState(msgspec.Struct, eq=False, gc=False):
    """An execution as its history tells it. `n`, `version`, `position` and `prev` are the head of that history,
    `weight` its bytes (kept by whoever reads and writes it). `begun`: the commits that began the runs. `going_since`: when a
    retry, a restore or a rollback on command last set it going. `bounded_waits`: whether anybody says a queue timeout.

    `in_flight`: steps that hold a slot, oldest first: an attempt is open, or a retry is being waited for. `ready`, `serial`:
    heaps of steps whose dependencies are completed: those marked parallel, and those that run one at a time. `doomed`: steps
    that can never run, and the failed step they depend on. `cancel`, `expired`: the version of the cancel request, and of the
    deadline that passed, which also name their grace timers; 0 = neither. `closed_timers`: the commits that closed timers;
    `cleared`: by commit, the timers that it closed before they fired. `left`: by commit, the attempts it gave up. `applied`:
    client commands that were carried out and decisions that were continued, and in which commit. `has_objects`: whether an
    output, the input or the plan is kept as an object; an `ObjectRef` then stands for it. `gated`: whether anybody says a
    rate limit, a concurrency key or resources of a step. `slot`: of the run's own concurrency key. `given_back`: by commit, the
    grants that it gave back. `leftover`: resources whose release is to be told. `last_control`: the time of the
    last wish that set the course (a wish from before it is out of date when it comes), `turned` its commit.

    For all runs: `standing`: what was done and nobody undid, in order of completion; `images`: what was before, by step; `past`:
    a step's lives in runs that are over, and the version that ended each. `undone`: by the version of what was done, the one
    that undid it. `pause`: the version of the pause; it stays when a cancel ends the pause, for what that one took back.
    `freed`: steps whose attempts nobody had when it was resumed last. `set_vars`: the changes of `variables`,
    by version, and whether they took the place of all that were before (a restore). `checkpoint`: the last in this line of runs.
    """

    execution_id: str
    n: int = 0
    version: int = 0
    position: int = 0
    prev: str = ""
    weight: int = 0
    time: datetime | None = None
    status: ExecutionStatus = "pending"
    phase: Phase = "queued"
    run: int = 1
    begun: tuple[int, ...] = (1,)
    created: e.ExecutionCreated = None  # type: ignore[assignment]  # set by the first event
    graph: Graph = None  # type: ignore[assignment]
    execution_policy: ExecutionPolicy = BUILT_IN_EXECUTION
    bounded_waits: bool = False
    gated: bool = False
    has_objects: bool = False
    slot: Slot | None = None
    steps: list[StepState] = []
    unsettled: int = 0
    in_flight: dict[int, None] = {}
    serial_busy: bool = False
    ready: list[int] = []
    serial: list[int] = []
    doomed: deque[tuple[int, str]] = NOBODY
    cursor: int = 0
    failing: bool = False
    failed: list[int] = []
    error: ErrorInfo | None = None
    cancel: int = 0
    cancel_reason: str = ""
    cancel_code: str | None = None
    expired: int = 0
    abandoned: list[str] = []
    paused: bool = False
    pause: int = 0
    freed: frozenset[int] = frozenset()
    pause_reason: str = ""
    paused_at: datetime | None = None
    timers: dict[int, Timer] = {}
    closed_timers: dict[int, int] = NOTHING
    cleared: dict[int, list[int]] = NOTHING
    left: dict[int, list[Lane]] = NOTHING
    given_back: dict[int, list[Holding]] = NOTHING
    leftover: list[Leftover] = []
    applied: dict[str, int] = {}
    last_control: datetime | None = None
    turned: int = 0
    policies: dict[int, Policy] = {}
    variables: dict[str, Any] = {}
    checkpoints: dict[str, Checkpoint] = NOTHING
    checkpoints_failed: bool = False
    deadline: datetime | None = None
    recovering: int = 0
    standing: dict[DeedKey, Deed] = {}
    images: dict[int, Any] = NOTHING
    undone: dict[int, int] = NOTHING
    past: dict[int, list[tuple[StepState, int]]] = NOTHING
    set_vars: list[tuple[int, dict[str, Any], bool]] = []
    checkpoint: str | None = None
    rollback: Rollback | None = None
    rollback_status: Literal["completed", "partial"] | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    going_since: datetime | None = None
    ended_at: datetime | None = None

    @property
    def exists(self) -> bool:
        return self.n > 0

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def stopping(self) -> bool:
        """Whether what runs was told to end: cancelled, or past its deadline."""
        return self.cancel > 0 or self.expired > 0

    @property
    def ending(self) -> bool:
        """Whether it ends early: nothing new is scheduled, what is open may still report."""
        return self.failing or self.cancel > 0

    # Policies ------------------------------------------------------------------------------------------------------------

    def task_of(self, index: int) -> str:
        """The task that does a step's work: its own, or its fallback."""
        return self.steps[index].fallback or self.graph.steps[index].task

    def policy_of(self, index: int) -> Policy:
        """The merged settings of a step's attempts (built-in < namespace < queue < task < plan < step < call)."""
        policy = self.policies.get(index)
        if policy is None:
            created, step = self.created, self.graph.steps[index]
            said = created.namespace is not EMPTY_NAMESPACE or created.config is not EMPTY_CONFIG or created.tasks
            if self.graph.plain[index] and not said:
                self.policies[index] = BUILT_IN
                return BUILT_IN
            levels = (created.tasks.get(self.task_of(index)), self.graph.plan.config, step, created.config)
            policy = self.policies[index] = merge_in(created.namespace, levels)
        return policy

    def undo_policy_of(self, deed: Deed, task: str) -> Policy:
        """The settings of the attempts to undo something: the compensation's own, in the queue of what it undoes.

        Not the step's: one that may not be tried twice can mostly be undone twice.
        """
        created, step = self.created, self.graph.steps[deed.step]
        levels = (created.tasks.get(deed.fallback or step.task), self.graph.plan.config, step, created.config)
        done = merge_in(created.namespace, levels)
        place = TaskSettings(queue=done.queue, priority=done.priority)
        return merge_in(created.namespace, (place, created.tasks.get(task)))

    def attempt_policy(self, index: int) -> Policy:
        """The settings of a step's open attempt, whatever it is for."""
        step = self.steps[index]
        if step.purpose == "task":
            return self.policy_of(index)
        if step.purpose == "compensation" and step.compensator is not None and self.rollback is not None:
            return self.undo_policy_of(self.rollback.order[self.rollback.cursor], step.compensator)
        if step.purpose == "recovery" and step.recovery is not None:
            asked = step.recovery
            own = self.policy_of(index)
            wait_ms = own.queue_timeout_ms or max(asked.timeout_ms, limits.recovery_wait_ms)
            return Policy(
                timeout_ms=asked.timeout_ms, max_retries=0, queue=asked.queue, priority=own.priority, queue_timeout_ms=wait_ms
            )
        return self.policy_of(index)

    def timeout_of(self, index: int) -> int:
        """Milliseconds that a step's open attempt may take (0: any): longer after attempts that timed out, if that was said."""
        policy, times = self.attempt_policy(index), self.steps[index].timed_out
        if not times or policy.timeout_growth == 1 or not policy.timeout_ms:
            return policy.timeout_ms
        try:
            return min(round(policy.timeout_ms * policy.timeout_growth**times), limits.timeout_ms)
        except OverflowError:
            return limits.timeout_ms

    # Outputs -------------------------------------------------------------------------------------------------------------

    def output_of(self, step_id: str) -> Any:
        """The output of a completed step, for references."""
        return self.steps[self.graph.index[step_id]].output


def table(state: ExecutionState, name: str) -> dict[Any, Any]:
    """A table of the state to write to."""
    found = getattr(state, name)
    if found is NOTHING:
        found = {}
        setattr(state, name, found)
    return found  # type: ignore[no-any-return]


def phase_of(state: ExecutionState) -> str:
    """The phase as it is shown: the state's own, `scheduled` before a start time, `recovering` while a strategy is asked.

    `created`: in the past only, as it was between the first event and the one behind it.
    """
    if state.slot is not None and not state.slot.granted:
        return "queued"
    if state.phase == "queued" and state.exists:
        return "created" if state.created.start_at is None else "scheduled"
    return "recovering" if state.phase == "executing" and state.recovering else state.phase
