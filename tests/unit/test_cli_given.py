"""What is given on the command line of times, metadata and options of a start."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import esexec
from esexec.cli.configure import read_settings
from esexec.cli.exits import Exit, exit_of
from esexec.cli.given import check_tasks, read_deadline, read_duration, read_metadata, read_moment, read_time, time_options
from esexec.domain.errors import NotFound, Refused, ValidationError


@pytest.mark.parametrize("text", ["2027-01-31T08:00:00Z", "2027-01-31T09:00:00+01:00", "2027-01-31 08:00Z"])
def test_times(text: str) -> None:
    """A time is read with its offset from UTC."""
    assert read_time(text, "--start-at") == datetime(2027, 1, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2027-01-31T08:00:00", "2027-01-31", "tomorrow", "", "10m"])
def test_times_that_cannot_be(text: str) -> None:
    """Without an offset, or as no time at all, it is refused with an example."""
    with pytest.raises(ValidationError) as refused:
        read_time(text, "--start-at")
    assert refused.value.code == "bad_time"
    assert "2027-" in (refused.value.hint or "")


BEGUN = datetime(2026, 11, 30, 12, 3, 7, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12:03:07", 0.749_999),
        ("12:03:07.250", 0.0),
        ("12:03:08", 1.749_999),
        ("12:04", 53.749_999),
        ("12:03:06", 86_399.749_999),
        ("00:00:00", 43_013.749_999),
        ("2026-11-30T12:03:07Z", 0.749_999),
        ("2026-11-30T13:03:08+01:00", 1.749_999),
        ("2026-11-30T12:03:07.000001Z", -0.249_999),
    ],
)
def test_a_moment_in_a_life(text: str, seconds: float) -> None:
    """A time of day is the first such moment since the beginning; a whole second lasts to its end."""
    assert read_moment(text, BEGUN, BEGUN + timedelta(days=2), "--at") == BEGUN + timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["2026-11-30T12:03:07", "noon", "", "24:30:00", "1:2:3", "12"])
def test_a_moment_that_is_none(text: str) -> None:
    """What is no time, or has no offset beside its date, is refused."""
    with pytest.raises(ValidationError) as refused:
        read_moment(text, BEGUN, BEGUN, "--at")
    assert refused.value.code == "bad_time"


def test_a_moment_that_did_not_come_yet() -> None:
    """A time of day before the beginning is not one of tomorrow, as long as that has not come: it was before the beginning."""
    assert read_moment("12:03:06", BEGUN, BEGUN + timedelta(hours=1), "--at") < BEGUN


def test_a_deadline_is_a_time_or_a_duration() -> None:
    """What begins like a date is a time; anything else is left to be a duration from now."""
    assert read_deadline("2027-01-31T08:00:00Z", "--deadline") == datetime(2027, 1, 31, 8, tzinfo=UTC)
    assert read_deadline("10m", "--deadline") == "10m"


def test_a_bare_number_is_seconds() -> None:
    """As in Python, 0 is none; what has a unit, or is no duration, is left as it is."""
    said = time_options(None, "0", delay="5", execution_timeout="0.5", checkpoint_interval="500ms", checkpoint_every="5")
    assert said == {
        "deadline": 0, "delay": 5, "execution_timeout": 0.5, "checkpoint_interval": "500ms", "checkpoint_every": "5",
    }  # fmt: skip
    assert [read_duration(text) for text in ("-1", "1e3", "nan", "", "٣")] == ["-1", "1e3", "nan", "", "٣"]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["max_retries=5", "timeout=30s"], {"max_retries": 5, "timeout": "30s"}),
        (["max_retries=", "queue=null"], {"max_retries": None, "queue": None}),
        (["queues.slow.timeout=10m", "queues.slow.max_retries=9"], {"queues": {"slow": {"timeout": "10m", "max_retries": 9}}}),
        (["queues.slow.timeout=", "queues.fast="], {"queues": {"slow": {"timeout": None}, "fast": None}}),
        (
            ['queues={"slow": {"priority": 1}}', "queues.fast.priority=9"],
            {"queues": {"slow": {"priority": 1}, "fast": {"priority": 9}}},
        ),
    ],
)
def test_settings_of_a_namespace(pairs: list[str], said: dict[str, Any]) -> None:
    """Dots lead to a queue's settings; nothing behind the = takes back what was said."""
    assert read_settings(pairs) == said


@pytest.mark.parametrize("pairs", [["alone"], ["=5"], ["a=1", "a=2"], ["queues.slow.a=1", "queues.slow=2"], ["a=1", "a.b=2"]])
def test_settings_that_cannot_be(pairs: list[str]) -> None:
    """Each is said once, as a pair."""
    with pytest.raises(ValidationError) as refused:
        read_settings(pairs)
    assert refused.value.code == "usage"


def test_only_what_was_given_is_said() -> None:
    """Options that were left out are left out."""
    assert time_options(None, None, delay=None, preset=None) == {}
    assert time_options(None, "1h", delay="5s", preset="bulk") == {"deadline": "1h", "delay": "5s", "preset": "bulk"}


@pytest.mark.parametrize(
    ("given", "metadata"),
    [
        (None, {}),
        (["why=before the change", "n=3", "ok=true", 'l=["a"]'], {"why": "before the change", "n": 3, "ok": True, "l": ["a"]}),
        (["a=b=c", "empty=", "n=NaN"], {"a": "b=c", "empty": "", "n": "NaN"}),
    ],
)
def test_metadata(given: list[str] | None, metadata: dict[str, Any]) -> None:
    """A value that is JSON is that; anything else is text."""
    assert read_metadata(given) == metadata


@pytest.mark.parametrize("text", ["alone", "=x", ""])
def test_metadata_that_cannot_be(text: str) -> None:
    """A pair needs its name."""
    with pytest.raises(ValidationError) as refused:
        read_metadata([text])
    assert refused.value.code == "bad_metadata"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("", code="ended"), Exit.REFUSED),
        (Refused("", code="nothing_to_retry"), Exit.REFUSED),
        (Refused("", code="unknown_checkpoint"), Exit.NOT_FOUND),
        (Refused("", code="unknown_step"), Exit.NOT_FOUND),
        (NotFound(""), Exit.NOT_FOUND),
    ],
)
def test_exit_codes_of_refusals(error: Exception, code: Exit) -> None:
    """What a state does not allow is refused (4); what is named and not there is not found (3)."""
    assert exit_of(error) is code


@pytest.mark.parametrize("role", ["fallback", "compensate"])
def test_every_task_that_a_plan_may_call_is_looked_for(role: str) -> None:
    """A fallback or a compensation that is not among the tasks is refused before anything runs, as the step's own task is."""
    book = esexec.task(name="book")(lambda: None)
    plan = esexec.Plan("p", [esexec.Step("book", **{role: "bok"})])
    with pytest.raises(esexec.ValidationError, match="bok"):
        check_tasks(plan, {"book": book})
