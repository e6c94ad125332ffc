"""All that must be remembered to go on judging: data, to be stored together with how far the log was read.

It comes in rows, one per alert that is set and one per execution, for most commits change one of them only.
"""

from datetime import UTC, datetime

import msgspec

from esexec.domain.alerts import Alert, AlertCondition

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Watch(msgspec.Struct, omit_defaults=True):
    """One condition on one thing. `since`: it holds since then; `alert`: and was told.

    `last`: when it was triggered last, and `again`: how often in that same moment before.
    """

    since: datetime | None = None
    alert: Alert | None = None
    last: datetime | None = None
    again: int = 0


class Bucket(msgspec.Struct, array_like=True):
    """What was counted in one part of a window. `number`: of the part, since 1970."""

    number: int
    total: float = 0.0
    count: int = 0


class Sampled(msgspec.Struct, omit_defaults=True):
    """What was said last of one worker, queue or projection, and when."""

    value: float
    heard_at: datetime
    watch: Watch


class SetAlert(msgspec.Struct, omit_defaults=True):
    """An alert that is set. `version`: of the event that set it. `watch`: on the scope as a whole; `sources`: on each of them."""

    alert_id: str
    version: int
    condition: AlertCondition
    set_at: datetime
    webhook: str | None = None
    watch: Watch = msgspec.field(default_factory=Watch)
    buckets: list[Bucket] = []
    sources: dict[str, Sampled] = {}


class Active(msgspec.Struct, omit_defaults=True):
    """What is counted of an execution, over all its runs; `began_at`: when this run did. `reported`: the last of each metric,
    and the last version of `_alerts` before it: an alert that was set later knows nothing of it.

    Of one that has `ended` only the counts matter, should it be run again.
    """

    execution_id: str
    plan_id: str = ""
    name: str = ""
    began_at: datetime | None = None
    ended: bool = False
    undoing_failure: bool = False
    attempts: int = 0
    attempts_failed: int = 0
    steps: int = 0
    steps_completed: int = 0
    retries: int = 0
    cost: float = 0.0
    quality: float = 0.0
    qualities: int = 0
    reported: dict[str, tuple[float, int]] = {}
    watches: dict[str, Watch] = {}


class AlertingState(msgspec.Struct):
    """`clock`: the log was judged up to this instant; `heard`: and samples. `version`: of the last event of `_alerts`."""

    clock: datetime = BEGINNING
    heard: datetime = BEGINNING
    version: int = 0
    alerts: dict[str, SetAlert] = {}
    executions: dict[str, Active] = {}
