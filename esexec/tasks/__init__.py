"""The user's side of a worker: how handlers and recovery strategies are declared, called and collected. No NATS, no log.

`task` makes a `Task` of a function; `Context` is what a handler may know of its attempt; `RecoveryStrategy` and `recovery` say
what follows from a failure; `resource` declares what handlers take turns with; `Cache` says which outputs serve again. `collect`
gathers tasks by name, `collect_strategies` strategies by id, `collect_resources` resources by name; `encode_with_output`
makes the bytes of a report that carries a handler's output.
"""

from esexec.tasks.caching import Cache
from esexec.tasks.context import AttemptCancelled, Context, current_context
from esexec.tasks.halting import Continue, Halt
from esexec.tasks.handlers import ANY_TASK, HandledTask, Handlers
from esexec.tasks.outputs import encode_with_output
from esexec.tasks.recovery import (
    NetworkTimeoutRecovery,
    RecoveryAction,
    RecoveryContext,
    RecoveryResult,
    RecoveryStrategy,
    as_strategy,
    recovery,
)
from esexec.tasks.registry import Tasks, collect, collect_strategies, records_before
from esexec.tasks.resources import WorkerResource, WorkerResources, collect_resources, resource
from esexec.tasks.task import Returns, Task, task

__all__ = [
    "ANY_TASK",
    "AttemptCancelled",
    "Cache",
    "Context",
    "Continue",
    "Halt",
    "HandledTask",
    "Handlers",
    "NetworkTimeoutRecovery",
    "RecoveryAction",
    "RecoveryContext",
    "RecoveryResult",
    "RecoveryStrategy",
    "Returns",
    "Task",
    "Tasks",
    "WorkerResource",
    "WorkerResources",
    "as_strategy",
    "collect",
    "collect_resources",
    "collect_strategies",
    "current_context",
    "encode_with_output",
    "records_before",
    "recovery",
    "resource",
    "task",
]
