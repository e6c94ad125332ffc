"""The report of a handler that has returned, or raised: the same whether it ran here or in a process of its own."""

import logging
from datetime import datetime
from typing import Any

import msgspec

from esexec.domain import reports as r
from esexec.domain.errors import ErrorInfo, ExecutionError
from esexec.domain.measures import Measured
from esexec.domain.messages import Dispatch
from esexec.domain.outcome import Err, Ok
from esexec.failures import describe
from esexec.tasks import Context, encode_with_output
from esexec.tasks.outputs import as_failure, encoded_directive
from esexec.world import now

logger = logging.getLogger("esexec.worker")

_encode = msgspec.json.encode


def completed(worker: str, started_at: datetime, context: Context, output: Any) -> tuple[r.Completed, bytes]:
    """What is reported of a handler that returned `output`.

    Raises what is its failure instead: of an `Err`, or of what cannot be kept.
    """
    directive: Any = None
    if isinstance(output, Err):
        raise as_failure(output)
    if isinstance(output, Ok):
        output, directive = output.value, encoded_directive(output.directive)
    report = r.Completed(
        worker=worker,
        started_at=started_at,
        ended_at=now(),
        output=output,
        vars=context.changed_vars(),
        measured=context.measured,
        directive=directive,
    )
    return report, encode_with_output(report, output)


def failed(
    worker: str,
    dispatch: Dispatch,
    started_at: datetime | None,
    error: BaseException,
    *,
    context: Context | None = None,
    measured: Measured | None = None,
) -> tuple[ErrorInfo, bytes]:
    """What is reported of a handler that raised."""
    ended_at = now()
    info = describe(error, task_id=dispatch.step, attempt=dispatch.attempt, timestamp=ended_at)
    report = r.Failed(
        worker=worker,
        started_at=started_at,
        ended_at=ended_at,
        error=info,
        vars=_news_of_a_failure(dispatch, context),
        measured=measured,
    )
    return info, _encode(report)


def _news_of_a_failure(dispatch: Dispatch, context: Context | None) -> dict[str, Any]:
    """The variables that a failed handler set. What cannot be kept of them is not to hide its error, so then none are."""
    try:
        return context.changed_vars() if context is not None else {}
    except ExecutionError as error:
        logger.warning("%s/%s failed, and its variables are lost: %s", dispatch.execution_id, dispatch.step, error)
        return {}
