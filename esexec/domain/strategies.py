"""Recovery strategies as the core knows them: when one applies, and what it can ask for. Their code is the user's, on workers.

A strategy is tried once a step has failed for good (`before_retries`: after every failed attempt), if the error may be recovered
from. The first that was added and applies is taken.
"""

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from esexec.domain import limits
from esexec.domain.errors import ErrorInfo
from esexec.domain.explain import quoted
from esexec.domain.ids import is_token, token_from

RecoveryVerb = Literal["retry", "skip", "fallback", "abort", "checkpoint_restore"]
"""What a strategy can ask for."""


Pattern = Annotated[str, Meta(max_length=limits.name_chars)]
EVERY_ERROR = ("*",)
_READABLE = 32
"""How much of an id that is no token stands in the name of its lane."""


class Strategy(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A recovery strategy of the namespace. `applicable_errors`: error codes, exact or as globs (`HTTP_5*`), in any case.

    `queue`: where it is asked, whose workers then have its code; "" = in a lane of its own, which every worker that has the code
    serves. `timeout_ms`: of one call; 0 = none.
    """

    id: Annotated[str, Meta(min_length=1, max_length=limits.task_name_chars)]
    name: Annotated[str, Meta(max_length=limits.name_chars)] = ""
    description: Annotated[str, Meta(max_length=limits.text_chars)] = ""
    applicable_errors: Annotated[tuple[Pattern, ...], Meta(max_length=100)] = EVERY_ERROR
    queue: Annotated[str, Meta(pattern=r"^([A-Za-z0-9-][A-Za-z0-9_-]{0,63})?\Z")] = ""
    timeout_ms: Annotated[int, Meta(ge=0, le=limits.timeout_ms)] = 30_000
    before_retries: bool = False

    @property
    def lane(self) -> str:
        """The queue in which its questions wait."""
        return self.queue or own_lane(self.id)

    def applies_to(self, error: ErrorInfo) -> bool:
        """Whether this error is one of those it handles."""
        code = error.code.lower()
        return any(fnmatchcase(code, pattern.lower()) for pattern in self.applicable_errors)


def own_lane(strategy_id: str) -> str:
    """The queue of a strategy that names none: no user's (its name begins with `_`), and no other strategy's."""
    plain = f"_recovery-{strategy_id}"
    if is_token(plain):
        return plain
    known = hashlib.sha256(strategy_id.encode()).hexdigest()[:16]
    return f"_recovery_{token_from(strategy_id)[:_READABLE]}-{known}"


def pattern_problem(patterns: Iterable[str]) -> ErrorInfo | None:
    """Why one of these cannot be among the `applicable_errors` of a strategy: no code ever matches it."""
    for pattern in patterns:
        if not pattern.strip() or not _can_match(pattern):
            return ErrorInfo(
                type="validation_error",
                code="bad_pattern",
                message=f"applicable_errors: {quoted(pattern)} matches no error",
                hint="error codes, exact or with * ? [abc]; left out, or an empty list, means every error",
            )
    return None


def _can_match(pattern: str) -> bool:
    """Whether every bracket is closed and holds something."""
    at = pattern.find("[")
    while at >= 0:
        first = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
        end = pattern.find("]", first + 1)  # a bracket right behind the opening one stands for itself
        if end < 0:
            return False
        at = pattern.find("[", end + 1)
    return "(?!)" not in translate(pattern)


def strategy_for(strategies: Iterable[Strategy], error: ErrorInfo, *, before_retries: bool) -> Strategy | None:
    """The first strategy that is to be asked about this error, if any."""
    if not error.recoverable:
        return None
    return next((one for one in strategies if one.before_retries == before_retries and one.applies_to(error)), None)


class NewState(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a strategy may change of the execution's state: `variables` take the place of those of the same name."""

    variables: dict[str, Any] = {}


class RecoveryOutcome(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a strategy returned: the output of its attempt. Further fields are not looked at."""

    success: bool
    action: RecoveryVerb
    message: str = ""
    new_state: NewState | None = None
