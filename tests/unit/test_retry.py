"""Which failures are repeated, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esexec.domain.errors import ErrorInfo, ErrorType
from esexec.domain.retry import FINAL_CODES, TRANSIENT_CODES, delay_ms, may_retry
from esexec.domain.settings import BUILT_IN, Policy

CERTAIN = 0.0
UTMOST = 1 - 2**-53
"""The largest number that `random.random()` gives."""


def failure(
    code: str = "SOMETHING",
    *,
    type: ErrorType = "execution_error",
    retryable: bool | None = None,
    retry_after_ms: int | None = None,
    status: object = None,
) -> ErrorInfo:
    context = {} if status is None else {"status_code": status}
    return ErrorInfo(type=type, code=code, message="m", retryable=retryable, retry_after_ms=retry_after_ms, context=context)


# How long ------------------------------------------------------------------------------------------------------------


def test_default_delays_without_jitter() -> None:
    """The delays double from one second and stop growing at sixty."""
    assert [delay_ms(BUILT_IN, n, None, CERTAIN) for n in range(1, 10)] == [
        1_000,
        2_000,
        4_000,
        8_000,
        16_000,
        32_000,
        60_000,
        60_000,
        60_000,
    ]


@pytest.mark.parametrize(
    ("retry", "chance", "expected"),
    [(1, 0.5, 1_125), (2, 0.5, 2_250), (3, 0.25, 4_250), (1, UTMOST, 1_250), (6, 0.1, 32_800), (7, UTMOST, 75_000)],
)
def test_default_delays_with_jitter(retry: int, chance: float, expected: int) -> None:
    """Jitter adds up to a quarter after the cap, so that no default delay exceeds 75 seconds."""
    assert delay_ms(BUILT_IN, retry, None, chance) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(backoff_multiplier=1.0, jitter=0.0), [1_000, 1_000, 1_000, 1_000]),
        (Policy(backoff_multiplier=3.0, jitter=0.0), [1_000, 3_000, 9_000, 27_000]),
        (Policy(backoff_multiplier=1.5, jitter=0.0), [1_000, 1_500, 2_250, 3_375]),
        (Policy(backoff_multiplier=1.15, jitter=0.0), [1_000, 1_150, 1_322, 1_521]),
        (Policy(initial_retry_delay_ms=0), [0, 0, 0, 0]),
        (Policy(initial_retry_delay_ms=90_000, jitter=0.0), [60_000, 60_000, 60_000, 60_000]),
        (Policy(initial_retry_delay_ms=100, max_retry_delay_ms=250, jitter=0.0), [100, 200, 250, 250]),
        (Policy(max_retry_delay_ms=0), [0, 0, 0, 0]),
    ],
)
def test_delays_follow_the_policy(policy: Policy, expected: list[int]) -> None:
    """The n-th retry waits initial × multiplier^(n-1), at most the cap."""
    assert [delay_ms(policy, n, None, UTMOST) for n in range(1, 5)] == expected


def test_the_thousandth_retry_does_not_overflow() -> None:
    """However steep the back-off and however late the retry, the delay is the cap."""
    assert delay_ms(Policy(backoff_multiplier=1_000.0, max_retries=1_000), 1_000, None, CERTAIN) == 60_000
    assert delay_ms(Policy(backoff_multiplier=1_000.0, initial_retry_delay_ms=0), 1_000, None, CERTAIN) == 0
    assert delay_ms(BUILT_IN, 1_000, None, UTMOST) == 75_000


@pytest.mark.parametrize(("asked", "expected"), [(2_500, 2_500), (0, 0), (86_400_000, 3_600_000), (-5, 0)])
def test_the_error_may_ask_for_its_own_delay(asked: int, expected: int) -> None:
    """A delay that the error asks for replaces back-off and jitter, up to the policy's cap for it."""
    assert delay_ms(BUILT_IN, 7, failure(retry_after_ms=asked), UTMOST) == expected


@given(
    initial=st.integers(0, 10**9),
    cap=st.integers(0, 10**9),
    multiplier=st.floats(1, 1_000),
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1, exclude_max=True),
    retry=st.integers(1, 1_000),
)
def test_every_delay_is_bounded_and_never_shrinks(
    initial: int, cap: int, multiplier: float, jitter: float, chance: float, retry: int
) -> None:
    """Any policy's delay lies between zero and the jittered cap, and a later retry never waits less."""
    policy = Policy(initial_retry_delay_ms=initial, max_retry_delay_ms=cap, backoff_multiplier=multiplier, jitter=jitter)
    delay = delay_ms(policy, retry, None, chance)
    assert 0 <= delay <= cap * (1 + jitter) + 1
    assert delay <= delay_ms(policy, retry + 1, None, chance)


# Whether -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("type", ["validation_error", "execution_error", "timeout_error", "internal_error"])
@pytest.mark.parametrize("code", ["NETWORK_TIMEOUT", "TYPE_ERROR", "SOMETHING"])
def test_the_errors_own_word_comes_first(retryable: bool, type: ErrorType, code: str) -> None:
    """An error that says whether it may be retried is believed above every list and setting."""
    error = failure(code, type=type, retryable=retryable)
    for unknown in (True, False):
        assert may_retry(Policy(retry_unknown=unknown), error) is retryable


def test_validation_errors_are_final() -> None:
    """A validation error is not retried, whatever its code."""
    assert not may_retry(BUILT_IN, failure("NETWORK_TIMEOUT", type="validation_error"))


def test_timeouts_of_attempts_are_retried() -> None:
    """An attempt that ran past its timeout is retried, also when unknown errors are not."""
    assert may_retry(Policy(retry_unknown=False), failure("task_timeout", type="timeout_error"))


@pytest.mark.parametrize("code", sorted(TRANSIENT_CODES))
def test_transient_codes_are_retried(code: str) -> None:
    """A code of the transient list is retried in either case of letters, also when unknown errors are not."""
    assert may_retry(Policy(retry_unknown=False), failure(code))
    assert may_retry(Policy(retry_unknown=False), failure(code.upper()))


@pytest.mark.parametrize("code", sorted(FINAL_CODES))
def test_final_codes_are_not_retried(code: str) -> None:
    """A code of the final list is not retried in either case of letters, also when unknown errors are."""
    assert not may_retry(BUILT_IN, failure(code))
    assert not may_retry(BUILT_IN, failure(code.upper()))


def test_no_code_is_in_both_lists() -> None:
    """A code is transient or final, never both; and the lists are written in lower case, as they are compared."""
    assert not TRANSIENT_CODES & FINAL_CODES
    assert all(code == code.lower() for code in TRANSIENT_CODES | FINAL_CODES)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 408, 425, 429])
def test_passing_http_failures_are_retried(status: int) -> None:
    """5xx, 408, 425 and 429 are retried, by status or by code, also when unknown errors are not."""
    assert may_retry(Policy(retry_unknown=False), failure(status=status))
    assert may_retry(Policy(retry_unknown=False), failure(f"HTTP_{status}"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 499])
def test_lasting_http_failures_are_not_retried(status: int) -> None:
    """Any other 4xx is not retried, by status or by code."""
    assert not may_retry(BUILT_IN, failure(status=status))
    assert not may_retry(BUILT_IN, failure(f"HTTP_{status}"))


@pytest.mark.parametrize("status", [200, 302, 0, 600, -1, "503", 503.0, True, [503], None])
def test_what_is_no_failed_status_says_nothing(status: object) -> None:
    """A status that is no HTTP failure leaves the decision to the setting for unknown errors."""
    assert may_retry(Policy(retry_unknown=True), failure(status=status))
    assert not may_retry(Policy(retry_unknown=False), failure(status=status))


@pytest.mark.parametrize("code", ["", "SOMETHING", "HTTP_", "HTTP_700", "HTTP_5033", "HTTP_٥٠٣"])
@pytest.mark.parametrize("unknown", [True, False])
def test_unknown_errors_follow_the_setting(code: str, unknown: bool) -> None:
    """An error that no rule knows is retried exactly if `retry_unknown` says so."""
    assert may_retry(Policy(retry_unknown=unknown), failure(code)) is unknown
