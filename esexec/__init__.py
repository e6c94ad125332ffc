"""esexec: a durable execution engine on NATS. This module holds the public names and nothing else."""

from esexec import telemetry
from esexec.client import Checkpoint, Client, Handle, KeptPlan, Monitoring, PoolUse, Startable, StartOptions, Subscription
from esexec.cloudevents import CloudEvent, ExecutionEventType
from esexec.domain.alerts import Alert, AlertCondition
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
    ResourceUnavailable,
    TaskTimeout,
    Unavailable,
    ValidationError,
    WorkerLost,
)
from esexec.domain.flow import Key, RateLimit, Resource, ResourcePool, ResourceRequirement, ResourceUsage
from esexec.domain.lint import PlanWarning
from esexec.domain.measures import Metric
from esexec.domain.messages import WorkerSample
from esexec.domain.rollback import Undo
from esexec.domain.settings import ExecutionConfig, NamespaceConfig
from esexec.engine import Engine
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
    Cache,
    Context,
    NetworkTimeoutRecovery,
    RecoveryAction,
    RecoveryContext,
    RecoveryResult,
    RecoveryStrategy,
    Task,
    WorkerResource,
    WorkerResources,
    collect,
    current_context,
    recovery,
    resource,
    task,
)
from esexec.views import Bar, ExecutionMetrics, Gantt, Span, TimelineEntry
from esexec.worker import Worker
from esexec.world import VERSION
from projections.statistics_asks import (
    ExecutionStatistics,
    ExecutionTotals,
    Rollbacks,
    TaskStatistics,
    TaskTotals,
    Undoings,
)

__version__ = VERSION

__all__ = [
    "Alert",
    "AlertCondition",
    "AttemptCancelled",
    "AwaitTimeout",
    "Bar",
    "Cache",
    "Checkpoint",
    "Classification",
    "Client",
    "CloudEvent",
    "Commit",
    "Conflict",
    "Context",
    "CorruptHistory",
    "EmbeddedServer",
    "Engine",
    "Err",
    "ErrorInfo",
    "EsexecError",
    "ExecutionCancelled",
    "ExecutionConfig",
    "ExecutionError",
    "ExecutionEventType",
    "ExecutionMetrics",
    "ExecutionResult",
    "ExecutionStatistics",
    "ExecutionStatus",
    "ExecutionTotals",
    "ExecutionUpdate",
    "Executor",
    "Gantt",
    "Handle",
    "InternalError",
    "KeptPlan",
    "Key",
    "LogMessage",
    "Metric",
    "Monitoring",
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
    "PoolUse",
    "Progress",
    "RateLimit",
    "RateLimited",
    "RecoveryAction",
    "RecoveryContext",
    "RecoveryResult",
    "RecoveryStrategy",
    "Refused",
    "Resource",
    "ResourcePool",
    "ResourceRequirement",
    "ResourceUnavailable",
    "ResourceUsage",
    "Rollbacks",
    "Span",
    "StartOptions",
    "Startable",
    "StateView",
    "Step",
    "Subscription",
    "Task",
    "TaskProgress",
    "TaskResult",
    "TaskStatistics",
    "TaskStatus",
    "TaskTimeout",
    "TaskTotals",
    "TaskView",
    "TimelineEntry",
    "Unavailable",
    "Undo",
    "Undoings",
    "ValidationError",
    "Verification",
    "Worker",
    "WorkerLost",
    "WorkerResource",
    "WorkerResources",
    "WorkerSample",
    "classifier",
    "collect",
    "connect",
    "current_context",
    "local",
    "recovery",
    "remove_classifier",
    "resource",
    "task",
    "telemetry",
]
