"""The life of an execution and the life of a step: two small state machines, as tables. `legality` holds histories against them,
and the drawings in `docs/explanation/lifecycle.md` are made from them.

An event that is missing from a status' row cannot happen in that status.
"""

from typing import Final

from esexec.domain import events as e
from esexec.domain.state import ExecutionStatus, StepStatus

ExecutionLife = dict[type[e.Event], dict[ExecutionStatus, tuple[ExecutionStatus, ...]]]
StepLife = dict[type[e.Event], dict[StepStatus, tuple[StepStatus, ...]]]

EXECUTION: Final[ExecutionLife] = {
    e.ExecutionStarted: {"pending": ("running",)},
    e.ExecutionQueued: {"pending": ("pending",), "running": ("running",)},
    e.ExecutionGranted: {"pending": ("pending",), "running": ("running",), "paused": ("paused",)},
    e.ExecutionPaused: {"pending": ("paused",), "running": ("paused",)},
    e.ExecutionResumed: {"paused": ("pending", "running")},
    e.ExecutionCancelRequested: {"pending": ("pending",), "running": ("running",), "paused": ("pending", "running")},
    e.DeadlineExceeded: {"pending": ("pending",), "running": ("running",), "paused": ("paused",)},
    e.ExecutionCompleted: {"running": ("completed",), "paused": ("completed",)},
    e.ExecutionFailed: {"pending": ("failed",), "running": ("failed",), "paused": ("failed",)},
    e.ExecutionCancelled: {"pending": ("cancelled",), "running": ("cancelled",)},
    e.RollbackStarted: {
        "running": ("running",),
        "paused": ("paused",),
        "completed": ("running",),
        "failed": ("running",),
        "cancelled": ("running",),
    },
    e.ExecutionRolledBack: {"running": ("rolled_back",), "paused": ("rolled_back",)},
    e.ExecutionRetried: {"failed": ("running",), "cancelled": ("running",), "rolled_back": ("running",)},
    e.CheckpointRestored: {
        "running": ("running",),
        "paused": ("paused",),
        "completed": ("running",),
        "failed": ("running",),
        "cancelled": ("running",),
        "rolled_back": ("running",),
    },
}
"""What an event makes of an execution's status; where there are two, `pending` before its first step, `running` after."""

STEP: Final[StepLife] = {
    e.TaskScheduled: {"pending": ("pending",)},
    e.TaskStarted: {"pending": ("running",)},
    e.TaskCompleted: {"running": ("completed",)},
    e.TaskFailed: {"pending": ("pending", "failed"), "running": ("pending", "failed")},
    e.TaskRejected: {"pending": ("pending", "failed"), "running": ("pending", "failed")},
    e.TaskTimedOut: {"pending": ("pending", "failed"), "running": ("pending", "failed")},
    e.TaskRetryScheduled: {"pending": ("pending",)},
    e.RecoveryInitiated: {"pending": ("pending",)},
    e.RecoveryStarted: {"pending": ("pending",)},
    e.RecoveryCompleted: {"pending": ("pending", "failed")},
    e.FallbackStarted: {"pending": ("pending",)},
    e.BeforeImageRecorded: {"pending": ("pending",), "running": ("running",)},
    e.TaskSkipped: {"pending": ("skipped",)},
    e.TaskCancelled: {"pending": ("cancelled",), "running": ("cancelled",), "rate_limited": ("cancelled",)},
    e.TaskRateLimited: {"pending": ("rate_limited",), "rate_limited": ("rate_limited",)},
    e.TaskGranted: {"pending": ("pending",), "rate_limited": ("pending",)},
    e.TaskCacheHit: {"pending": ("running",), "running": ("running",)},
}
"""What an event makes of a step's status; `pending` where a further attempt, a strategy or a fallback follows a failed one.

A new run (retry, restore) makes every step that is not kept `pending` again. Undoing a step does not change its status,
nor does a rate limit of its undoing, nor does what becomes of an attempt that waits for a worker (`task_held`, `task_overdue`).
"""
