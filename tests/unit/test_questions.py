"""What cannot be asked for is refused before it is asked, with what there is instead."""

from typing import Any

import pytest

from esexec.client.queries import alerts_asked, executions_asked, statistics_asked, task_statistics_asked, tasks_asked
from esexec.domain.errors import ValidationError


@pytest.mark.parametrize(
    ("asked", "conditions", "hint"),
    [
        (executions_asked, {"status": "faild"}, "one of pending, running, paused, completed, failed, cancelled, rolled_back"),
        (tasks_asked, {"status": ["failed", "late"]}, "rate_limited"),
        (executions_asked, {"stauts": "failed"}, "status"),
        (executions_asked, {"since": "2h"}, "a datetime"),
        (alerts_asked, {"state": "open"}, "one of triggered, resolved"),
        (statistics_asked, {"by": "week"}, "one of name, plan_id, hour, day"),
        (task_statistics_asked, {"by": "plan_id"}, "one of name, hour, day"),
        (executions_asked, {"metadata": {"a": {"b": 1}}}, "ListExecutions"),
    ],
)
def test_what_there_is_instead(asked: Any, conditions: Any, hint: str) -> None:
    """Names of conditions, and the values that one can have."""
    with pytest.raises(ValidationError) as refused:
        asked(conditions)
    assert refused.value.code == "bad_condition"
    assert hint in (refused.value.hint or "")
