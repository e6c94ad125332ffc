"""Conditions of alerts as people write them → `alerts.AlertCondition`: durations with units, operators as symbols."""

from collections.abc import Mapping
from typing import Any

from esexec.domain import aliases
from esexec.domain.alerts import SYMBOLS, AlertCondition, condition_problem
from esexec.domain.aliases import Written, by_field
from esexec.domain.errors import ValidationError, to_exception
from esexec.domain.explain import joined
from esexec.domain.values import convert, duration, with_durations

SaidCondition = AlertCondition | Mapping[str, Any]
"""A condition, or a mapping of what one says: durations with units, operators as `>` as well."""


def read_condition(value: object, path: str = "") -> AlertCondition:
    """A condition: the object, or a mapping in any spelling. The threshold of a duration can be one (`"2h"`).

    Raises ValidationError: `invalid_value`, `unknown_key`, `said_twice`, `missing`, `invalid_duration`, `ambiguous_duration`, and
    what `condition_problem` finds.
    """
    if isinstance(value, AlertCondition):
        value = {field: getattr(value, field) for field in AlertCondition.__struct_fields__}
    fields = with_durations(by_field(value, aliases.ALERT, path), path, False)
    for field in ("metric", "operator", "threshold"):
        if field not in fields:
            hint = "a condition has a `metric`, an `operator` and a `threshold`"
            raise ValidationError(f"{joined(path, field)}: missing", code="missing", hint=hint, path=joined(path, field))
    operator, threshold = fields["operator"], fields["threshold"]
    if isinstance(operator.value, str):
        fields["operator"] = Written(operator.key, SYMBOLS.get(operator.value, operator.value))
    if isinstance(threshold.value, str) and fields["metric"].value in ("execution_duration", "lag"):
        fields["threshold"] = Written(threshold.key, duration(threshold.value, joined(path, threshold.key), False))
    condition = convert(AlertCondition, fields, path)
    if (problem := condition_problem(condition)) is not None:
        raise to_exception(problem)
    return condition
