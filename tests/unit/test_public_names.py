"""The public face: a name that is here is promised, and one that is not here is not."""

import tomllib
from pathlib import Path

import esexec

NAMES = """
Alert AlertCondition AsyncClosure ChainError ChainResult Closure Continue Halt Link MapOptions Returns Starting SyncClient
SyncHandle AttemptCancelled AwaitTimeout Bar Cache Checkpoint Classification Client CloudEvent Commit Conflict
Context CorruptHistory DeadLetter Redriven
EmbeddedServer Engine Err ErrorInfo EsexecError ExecutionCancelled ExecutionConfig ExecutionError
ExecutionEventType ExecutionMetrics ExecutionResult ExecutionStatistics ExecutionStatus ExecutionTotals ExecutionUpdate
Executor Gantt Handle HandledTask Handlers InternalError KeptPlan Key LogMessage Metric Monitoring NamespaceConfig
NetworkTimeoutRecovery NotConfirmed NotFound Ok Overloaded Pending Plan PlanInvalid PlanWarning PoolUse ProcessCrashed
Progress RateLimit RateLimited RecoveryAction RecoveryContext RecoveryResult RecoveryStrategy Refused Resource ResourcePool
ResourceRequirement ResourceUnavailable ResourceUsage Rollbacks Span StartOptions Startable StateView Step Subscription Task
TaskError TaskProgress TaskResult TaskStatistics TaskStatus TaskTimeout TaskTotals TaskView TimelineEntry Unavailable Undo
Undoings UnknownTask ValidationError Verification Worker WorkerLost WorkerResource WorkerResources WorkerSample
classifier collect connect connect_sync current_context link local recovery remove_classifier resource task telemetry
"""


def test_the_public_names_are_these() -> None:
    """A new name is added here on purpose; one that goes away breaks somebody's program."""
    assert sorted(esexec.__all__) == sorted(NAMES.split())


def test_every_public_name_is_there_and_documented() -> None:
    """Each can be imported, and says what it is (aliases of types cannot)."""
    for name in esexec.__all__:
        assert name == "Startable" or getattr(esexec, name).__doc__, name


def test_every_error_is_an_esexec_error() -> None:
    """One `except` catches them all; timeouts are TimeoutErrors too."""
    kinds = [
        kind for name in esexec.__all__ if isinstance(kind := getattr(esexec, name), type) and issubclass(kind, BaseException)
    ]
    for kind in kinds:
        assert issubclass(kind, esexec.EsexecError) or kind is esexec.AttemptCancelled
    assert issubclass(esexec.AwaitTimeout, TimeoutError)
    assert issubclass(esexec.TaskTimeout, TimeoutError)


def test_the_version_is_that_of_the_package() -> None:
    """One version, in two places that agree."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert esexec.__version__ == project["project"]["version"]
