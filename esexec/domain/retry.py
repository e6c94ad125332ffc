"""Whether a failed attempt is repeated, and when. Pure: chance comes in as a number, the clock is nobody's business here.

Whether, in this order: what the error itself says (`retryable`: its raiser, or the classifier that saw it) → its type →
the built-in codes below → an HTTP status → `retry_unknown`. How often is not decided here: the decider counts attempts.

The codes are a public vocabulary. Workers in any language report them; they are compared without regard to case.
"""

import re
from typing import Any, Final

from esexec.domain.errors import ErrorInfo
from esexec.domain.settings import Policy

TRANSIENT_CODES: Final = frozenset(
    {
        # Timeouts of something that the handler called.
        "timeout",
        "network_timeout",
        "connection_timeout",
        "etimedout",
        # Connections that could not be made, or broke.
        "network_error",
        "connection_error",
        "connection_refused",
        "connection_reset",
        "connection_aborted",
        "broken_pipe",
        "host_unreachable",
        "network_unreachable",
        "name_not_resolved",
        "econnrefused",
        "econnreset",
        "econnaborted",
        "epipe",
        "ehostunreach",
        "enetunreach",
        "enotfound",
        "eai_again",
        # Somebody is there, but not for us, not now.
        "rate_limited",
        "unavailable",
        "service_unavailable",
        "temporarily_unavailable",
        "no_responders",
        # The attempt's worker is gone; the task itself has failed in nothing.
        "worker_lost",
    }
)
"""Codes of errors that may be gone at the next try."""

FINAL_CODES: Final = frozenset(
    {
        # Bad input stays bad.
        "invalid",
        "invalid_params",
        "invalid_json",
        "syntax_error",
        "unknown_task",
        # Not allowed stays not allowed.
        "unauthorized",
        "forbidden",
        "permission_denied",
        "eacces",
        "eperm",
        # Mistakes in the program.
        "type_error",
        "name_error",
        "reference_error",
        "attribute_error",
        "import_error",
        "not_implemented",
        "assertion_failed",
        # An output that cannot be kept would be computed again in vain, side effects included.
        "output_not_serializable",
        "output_too_large",
        "output_too_deep",
    }
)
"""Codes of errors that every further try would meet again."""

_HTTP_CODE = re.compile(r"http_([1-5]\d\d)", re.ASCII)
_TRANSIENT_STATUS = frozenset({408, 425, 429})


def may_retry(policy: Policy, error: ErrorInfo) -> bool:
    """Whether an attempt that ended with `error` may be repeated, as far as the error goes."""
    if error.retryable is not None:
        return error.retryable
    if error.type == "validation_error":
        return False
    if error.type == "timeout_error":
        return True
    for verdict in (by_code(error.code), by_status(error.context.get("status_code"))):
        if verdict is not None:
            return verdict
    return policy.retry_unknown


def by_code(code: str) -> bool | None:
    """What the built-in lists say of a code, `HTTP_503` and its like included; None = they do not know it."""
    code = code.lower()
    if code in TRANSIENT_CODES:
        return True
    if code in FINAL_CODES:
        return False
    http = _HTTP_CODE.fullmatch(code)
    return by_status(int(http[1])) if http else None


def by_status(status: Any) -> bool | None:
    """What an HTTP status says: 5xx, 408, 425 and 429 may be gone next time, other 4xx not; None = nothing."""
    if type(status) is not int:
        return None
    if 500 <= status <= 599 or status in _TRANSIENT_STATUS:
        return True
    return False if 400 <= status <= 499 else None


def delay_ms(policy: Policy, retry: int, error: ErrorInfo | None, chance: float) -> int:
    """Milliseconds from the failure until the `retry`-th re-attempt (from 1). `chance` is uniform in [0, 1).

    A delay that the error asks for replaces back-off and jitter, up to `policy.max_retry_after_ms`.
    """
    if error is not None and error.retry_after_ms is not None:
        return max(0, min(error.retry_after_ms, policy.max_retry_after_ms))
    return round(_backoff_ms(policy, retry) * (1 + policy.jitter * chance))


def _backoff_ms(policy: Policy, retry: int) -> float:
    if policy.initial_retry_delay_ms == 0:
        return 0
    try:
        grown = policy.initial_retry_delay_ms * policy.backoff_multiplier ** (retry - 1)
    except OverflowError:  # A thousand retries outgrow a float long after they outgrew every cap.
        return policy.max_retry_delay_ms
    return min(grown, policy.max_retry_delay_ms)
