"""`describe`: the one way from an exception of a handler to what is stored of it."""

import math
import os
import re
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, get_args

import msgspec

from esexec.domain import limits
from esexec.domain.errors import ErrorInfo, ErrorType, EsexecError, ExecutionError, Overloaded, ValidationError
from esexec.domain.retry import by_code, by_status
from esexec.failures.classifiers import NOTHING_SAID, classify
from esexec.failures.known import attribute, header_of, known, status_of
from esexec.failures.text import clean, plain, plain_directive

_TYPES: Final = frozenset(get_args(ErrorType))
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OUR_FILES = os.path.dirname(os.path.dirname(__file__)) + os.sep
_CAUSES = 5


def describe(error: BaseException, *, task_id: str | None, attempt: int | None, timestamp: datetime) -> ErrorInfo:
    """What is stored of an exception that a handler raised. Never raises; what it gives can be encoded as JSON.

    `timestamp` (aware, UTC) is when it was raised; a `Retry-After` that is a date counts from there.
    `retryable` None = neither the error nor a classifier nor the built-in lists know.
    """
    try:
        info = _describe(error, timestamp)
    except Exception:
        info = ErrorInfo(
            type="execution_error", code=_code_from_name(error), message=f"{type(error).__name__} (it cannot be described)"
        )
    info.task_id, info.attempt, info.timestamp = task_id, attempt, timestamp
    return info


def _describe(error: BaseException, timestamp: datetime) -> ErrorInfo:
    heart = _heart(error)
    info = _of_ours(heart) or ErrorInfo(type="execution_error", code=_code(heart), message=_message(heart))
    info.exception = clean(_qualified_name(heart), limits.name_chars)
    info.stack = _stack(error)
    _judge(info, heart, timestamp)
    _add_context(info, heart)
    msgspec.json.encode(info)
    return info


def _judge(info: ErrorInfo, error: BaseException, timestamp: datetime) -> None:
    """Set `code`, `retryable` and `retry_after_ms`: each by the first who knows."""
    settled = info.retryable is not None or isinstance(error, ValidationError)
    said = NOTHING_SAID if settled else classify(error)
    facts = None if isinstance(error, EsexecError) else known(error)
    if said.code is not None:
        info.code = clean(str(said.code), limits.name_chars)
    elif facts is not None:
        info.code = facts.code
    status = info.context.get("status_code", status_of(error))
    opinions = (
        info.retryable,
        False if isinstance(error, ValidationError) else None,
        said.retry,
        True if isinstance(error, Overloaded) else None,
        facts.retryable if facts is not None else None,
        by_code(info.code),
        by_status(status),
    )
    info.retryable = next((opinion for opinion in opinions if opinion is not None), None)
    for wait in (said.retry_after, attribute(error, "retry_after"), header_of(error, "Retry-After")):
        wait_ms = _wait_ms(wait, timestamp)
        if wait_ms is not None:
            info.retry_after_ms = wait_ms
            break


def _of_ours(error: BaseException) -> ErrorInfo | None:
    """What an error of our tree says itself, made fit; None if it is not of our tree, or a subclass broke it.

    One that came from another attempt brings its own task, time and stack: those are not this failure's.
    """
    if not isinstance(error, EsexecError):
        return None
    try:
        explicit = error.retry if isinstance(error, ExecutionError) else None
        return ErrorInfo(
            type=error.type if error.type in _TYPES else "execution_error",
            code=clean(str(error.code), limits.name_chars),
            message=clean(str(error.message) or type(error).__name__, limits.text_chars),
            hint=None if error.hint is None else clean(str(error.hint), limits.text_chars),
            retryable=explicit if isinstance(explicit, bool) else None,
            recoverable=True if error._info is None else error._info.recoverable,
            context=plain(error.context),
            directive=plain_directive(error.directive) if isinstance(error, ExecutionError) else None,
        )
    except Exception:
        return None


def _add_context(info: ErrorInfo, error: BaseException) -> None:
    """Beside what the error says: the HTTP status, what caused it, or what it is a group of."""
    more: dict[str, Any] = {}
    status = status_of(error)
    if status is not None:
        more["status_code"] = status
    if causes := _causes(error):
        more["causes"] = causes
    if isinstance(error, BaseExceptionGroup):
        more["errors"] = [_line(one) for one in error.exceptions[:_CAUSES]]
    if more:
        info.context = {**more, **info.context}


def _heart(error: BaseException) -> BaseException:
    """The one exception inside a group of one: a TaskGroup wraps even a single failure."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


# Code and message --------------------------------------------------------------------------------------------------------


def _code(error: BaseException) -> str:
    """The code that the exception itself carries, if it is one; else its class's name: `CardDeclined` → `CARD_DECLINED`."""
    own = attribute(error, "code")
    if isinstance(own, str) and _CODE.fullmatch(own):
        return str(own)
    return _code_from_name(error)


def _code_from_name(error: BaseException) -> str:
    return clean(_WORDS.sub("_", type(error).__name__).upper(), limits.name_chars)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        return f"{type(error).__name__} (its text cannot be read)"
    if type(error) is KeyError:  # Its text is nothing but the key.
        text = f"missing key {text}"
    return clean(text or type(error).__name__, limits.text_chars)


def _qualified_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _line(error: BaseException) -> str:
    return clean(f"{type(error).__name__}: {_message(error)}", limits.name_chars)


# Where it came from ------------------------------------------------------------------------------------------------------


def _stack(error: BaseException) -> str | None:
    """The traceback, from the handler on: the engine's own frames above it tell the user nothing."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        frames = frames.tb_next
    if frames is None and isinstance(error, EsexecError):
        return None  # Refused before the handler began: the message says all.
    try:
        lines = traceback.format_exception(type(error), error, frames or error.__traceback__)
    except Exception:  # A hostile `__getattr__` or `__notes__`; the places are still good.
        lines = traceback.format_tb(frames or error.__traceback__)
    return clean("".join(lines), limits.stack_chars) or None


def _causes(error: BaseException) -> list[str]:
    """One line for each exception below this one, as a traceback would show them, nearest first."""
    lines: list[str] = []
    seen = {id(error)}
    below = _below(error)
    while below is not None and id(below) not in seen and len(lines) < _CAUSES:
        seen.add(id(below))
        lines.append(_line(below))
        below = _below(below)
    return lines


def _below(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


# When to try again -------------------------------------------------------------------------------------------------------


def _wait_ms(wait: Any, now: datetime) -> int | None:
    """Milliseconds from seconds, a timedelta, or the text of a `Retry-After` header; None if it is none of these."""
    try:
        if isinstance(wait, str):
            wait = _seconds(wait.strip(), now)
        if isinstance(wait, timedelta):
            wait = wait.total_seconds()
        if isinstance(wait, bool) or not isinstance(wait, int | float) or math.isnan(wait):
            return None
        return round(min(max(wait, 0), limits.delay_ms / 1000) * 1000)
    except Exception:
        return None


def _seconds(header: str, now: datetime) -> float:
    try:
        return float(header)
    except ValueError:
        due = parsedate_to_datetime(header)
        return ((due if due.tzinfo else due.replace(tzinfo=UTC)) - now).total_seconds()
