"""Durations as people write them become whole milliseconds, or are refused."""

from datetime import timedelta
from typing import Any

import pytest

from esexec.domain.durations import milliseconds
from esexec.domain.errors import ValidationError


@pytest.mark.parametrize(
    ("written", "expected_ms"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("2d", 172_800_000),
        ("1.5s", 1_500),
        ("1m500ms", 60_500),
        ("0s", 0),
        (30, 30_000),
        (0.1, 100),
        (0, 0),
        (timedelta(seconds=1, microseconds=500_000), 1_500),
        (timedelta(0), 0),
    ],
)
def test_a_duration_has_one_meaning(written: Any, expected_ms: int) -> None:
    """Strings carry their unit, bare numbers are seconds, timedeltas are exact."""
    assert milliseconds(written, name="timeout") == expected_ms


@pytest.mark.parametrize("name", ["timeout_ms", "timeoutMs", "steps[2].retryDelayMs"])
def test_a_name_in_milliseconds_makes_bare_numbers_milliseconds(name: str) -> None:
    """Under a key that ends in `_ms` or `Ms` a bare number is milliseconds; a string keeps its unit."""
    assert milliseconds(250, name=name) == 250
    assert milliseconds("2s", name=name) == 2_000


@pytest.mark.parametrize("written", ["0.0001ms", 0.000_001, timedelta(microseconds=1)])
def test_what_is_not_nothing_never_becomes_nothing(written: Any) -> None:
    """Less than a millisecond is one millisecond: 0 would mean "no timeout"."""
    assert milliseconds(written, name="timeout") == 1


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "30", "s", "30 seconds", "-1s", "1s1m", "1s 2s", "30S", "1e3s", "٣s", "9" * 5_000 + "s", "1" + " " * 10_000),
        *(-1, -0.5, timedelta(seconds=-1), float("nan"), float("inf"), 1e308, 10**400, timedelta(days=366)),
        *(True, False, None, [], {}, b"30s", 1j),
    ],
    ids=lambda written: repr(written)[:20],
)
def test_anything_else_is_refused(written: Any) -> None:
    """Negative, not finite, without a unit, longer than a year, or of another type: `invalid_duration`, with a hint."""
    with pytest.raises(ValidationError) as refused:
        milliseconds(written, name="timeout")
    assert refused.value.code == "invalid_duration"
    assert refused.value.hint
    assert "timeout" in refused.value.message
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("written", ["0", "none", "soon"])
def test_the_hint_says_how_none_is_written(written: str) -> None:
    """Who writes "0" is told of 0 and "0s"."""
    with pytest.raises(ValidationError) as refused:
        milliseconds(written, name="timeout")
    assert refused.value.hint is not None
    assert '0 or "0s" for none' in refused.value.hint


def test_a_duration_that_has_to_be_some_time() -> None:
    """Where 0 is refused the hint does not offer it."""
    for wrong in (-1, "soon", None, "0"):
        with pytest.raises(ValidationError) as refused:
            milliseconds(wrong, name="lease", can_be_0=False)  # type: ignore[arg-type]
        assert refused.value.code == "invalid_duration"
        assert refused.value.hint
        assert "none" not in refused.value.hint


def test_numbers_too_long_to_print_are_refused() -> None:
    """A number with more digits than Python prints is an ordinary `invalid_duration`."""
    with pytest.raises(ValidationError) as refused:
        milliseconds(10**5_000, name="timeout")
    assert refused.value.code == "invalid_duration"
