"""Outputs as the types that tasks are annotated to return, for who has the task itself."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pydantic
import pytest

import esexec
from esexec import Continue, Err, Halt, Ok, ValidationError
from esexec.tasks.reading import reader_of


@dataclass
class Place:
    dock: int


class Model(pydantic.BaseModel):
    dock: int


def returning(kind: Any) -> esexec.Task[..., Any]:
    def handler() -> None: ...

    handler.__annotations__["return"] = kind
    return esexec.task(handler)


@pytest.mark.parametrize(
    "kind",
    [Any, None, int, str, dict, dict[str, Any], list[int] | None, dict[str, list[float | str]], Ok, Ok[int], Ok[int] | Err,
     Err, Halt | Continue, Ok[Place] | int, "Nowhere", object],
)  # fmt: skip
def test_what_json_has_is_left_as_it_is(kind: Any) -> None:
    """Nothing is done for it; nor where only a handler could tell what is meant, or an annotation means nothing."""
    assert reader_of(returning(kind)) is None


@pytest.mark.parametrize(
    ("kind", "output", "value"),
    [
        (Place, {"dock": 7}, Place(7)),
        (Place | None, None, None),
        (list[Place], [{"dock": 7}], [Place(7)]),
        (dict[str, Model], {"a": {"dock": 7}}, {"a": Model(dock=7)}),
        (Model, {"dock": 7}, Model(dock=7)),
        (Ok[Place] | Err, {"dock": 7}, Place(7)),
        (Ok[Place], {"dock": 7}, Place(7)),
        (datetime, "2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (PurePosixPath, "a/b", PurePosixPath("a/b")),
    ],
)
def test_an_output_becomes_what_the_task_returns(kind: Any, output: Any, value: Any) -> None:
    """Structs, dataclasses, models, times, tuples, paths, and what is made of them."""
    read = reader_of(returning(kind))
    assert read is not None
    assert read(output) == value


@pytest.mark.parametrize("output", [{"dock": "seven"}, None, [], {}])
def test_an_unexpected_output_says_so(output: Any) -> None:
    """Another version of the task may have run; the value can still be had."""
    read = reader_of(returning(Place))
    assert read is not None
    with pytest.raises(ValidationError) as refused:
        read(output)
    assert (refused.value.code, "client.get" in (refused.value.hint or "")) == ("unexpected_output", True)
