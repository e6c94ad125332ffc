"""What is said of a start whose tasks no worker has announced."""

from collections.abc import Iterable

from esexec.domain.messages import Warned


def warnings_of(unannounced: Iterable[str]) -> tuple[Warned, ...]:
    """A warning for each of these tasks."""
    return tuple(
        Warned(
            code="unannounced_task",
            message=f"no worker has announced the task {task}: it waits for one; a worker of its queue without it rejects it",
            hint="is the name right? esexec tasks ls shows those that are known; esexec worker --tasks MODULE brings more",
        )
        for task in unannounced
    )
