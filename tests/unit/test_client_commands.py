"""What the client refuses to send."""

import math
from typing import Any

import pytest

from esexec.client.commands import encode_command
from esexec.domain import commands as c
from esexec.domain.errors import ValidationError


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("field", "path"), [("input", "input.rows[1].n"), ("context", "context.rows[1].n"), ("metadata", "metadata.rows[1].n")]
)
def test_numbers_that_json_does_not_have(number: float, field: str, path: str) -> None:
    """They would come as null: something else than was given."""
    given: dict[str, Any] = {field: {"rows": [{"n": None}, {"n": number}]}}
    with pytest.raises(ValidationError, match="is no finite number") as refused:
        encode_command(c.StartExecution(id="a", task="t", **given))
    assert refused.value.code == "not_serializable"
    assert path in refused.value.message


def test_what_is_really_null_is_sent() -> None:
    """None is a value like any other."""
    assert b'"input":{"n":null}' in encode_command(c.StartExecution(id="a", task="t", input={"n": None}))
