"""esexec: a durable execution engine on NATS. This module holds the public names and nothing else."""

from esexec.client import Checkpoint, Client, Handle, KeptPlan, Startable, StartOptions
from esexec.domain.checkpoints import StateView, TaskView
from esexec.domain.commit import Commit
from esexec.domain.errors import (
    AwaitTimeout,
    Conflict,
    CorruptHistory,
    ErrorInfo,
    EsexecError,
    ExecutionCancelled,
    ExecutionError,
    InternalError,
    NotConfirmed,
    NotFound,
    Overloaded,
    PlanInvalid,
    RateLimited,
    Refused,
    TaskTimeout,
    Unavailable,
    ValidationError,
    WorkerLost,
)
from esexec.domain.lint import PlanWarning
from esexec.domain.measures import Metric
from esexec.domain.rollback import Undo
from esexec.domain.settings import ExecutionConfig, NamespaceConfig
from esexec.executor import Executor
from esexec.failures import Classification, classifier, remove_classifier
from esexec.local import connect, local
from esexec.log.verify import Verification
from esexec.nats.embedded import EmbeddedServer
from esexec.plans import Plan, Step
from esexec.results import (
    Err,
    ExecutionResult,
    ExecutionStatus,
    ExecutionUpdate,
    LogMessage,
    Ok,
    Pending,
    Progress,
    TaskProgress,
    TaskResult,
    TaskStatus,
)
from esexec.tasks import (
    AttemptCancelled,
    Context,
    NetworkTimeoutRecovery,
    RecoveryAction,
    RecoveryContext,
    RecoveryResult,
    RecoveryStrategy,
    Task,
    collect,
    current_context,
    recovery,
    task,
)
from esexec.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "AttemptCancelled",
    "AwaitTimeout",
    "Checkpoint",
    "Classification",
    "Client",
    "Commit",
    "Conflict",
    "Context",
    "CorruptHistory",
    "EmbeddedServer",
    "Err",
    "ErrorInfo",
    "EsexecError",
    "ExecutionCancelled",
    "ExecutionConfig",
    "ExecutionError",
    "ExecutionResult",
    "ExecutionStatus",
    "ExecutionUpdate",
    "Executor",
    "Handle",
    "InternalError",
    "KeptPlan",
    "LogMessage",
    "Metric",
    "NamespaceConfig",
    "NetworkTimeoutRecovery",
    "NotConfirmed",
    "NotFound",
    "Ok",
    "Overloaded",
    "Pending",
    "Plan",
    "PlanInvalid",
    "PlanWarning",
    "Progress",
    "RateLimited",
    "RecoveryAction",
    "RecoveryContext",
    "RecoveryResult",
    "RecoveryStrategy",
    "Refused",
    "StartOptions",
    "Startable",
    "StateView",
    "Step",
    "Task",
    "TaskProgress",
    "TaskResult",
    "TaskStatus",
    "TaskTimeout",
    "TaskView",
    "Unavailable",
    "Undo",
    "ValidationError",
    "Verification",
    "Worker",
    "WorkerLost",
    "classifier",
    "collect",
    "connect",
    "current_context",
    "local",
    "recovery",
    "remove_classifier",
    "task",
]
