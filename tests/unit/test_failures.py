"""What is stored of an exception of user code, and whether another try may help."""

import asyncio
import errno
import json
import logging
import socket
import sqlite3
import urllib.error
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Any

import httpx
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esexec.domain import errors, limits
from esexec.domain.errors import ErrorInfo, EsexecError, ExecutionError, RateLimited, ValidationError
from esexec.domain.outcome import Err
from esexec.domain.retry import may_retry
from esexec.domain.settings import Policy
from esexec.domain.shape import check_shape
from esexec.failures import Classification, classifier, describe, remove_classifier
from esexec.failures.classifiers import Classifier
from esexec.tasks.outputs import as_failure

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UNKNOWN_FINAL = Policy(retry_unknown=False)


def told(error: BaseException) -> ErrorInfo:
    """What is stored of an error that was really raised."""
    try:
        raise error
    except BaseException as raised:
        return describe(raised, task_id="step", attempt=2, timestamp=NOW)


def http_error(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://example.test/")
    response = httpx.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()}, request=request)
    return httpx.HTTPStatusError("no", request=request, response=response)


@pytest.fixture
def registered() -> Iterator[Callable[[Classifier], None]]:
    """Registers classifiers for the length of one test."""
    known: list[Classifier] = []

    def register(fn: Classifier) -> None:
        known.append(classifier(fn))

    yield register
    for fn in known:
        remove_classifier(fn)


# What it was ---------------------------------------------------------------------------------------------------------


def test_a_failure_tells_what_where_and_when() -> None:
    """A described exception has code, message, class, task, attempt, time and a traceback from the handler on."""
    info = told(ZeroDivisionError("division by zero"))
    assert (info.type, info.code, info.message) == ("execution_error", "ZERO_DIVISION_ERROR", "division by zero")
    assert (info.task_id, info.attempt, info.timestamp, info.exception) == ("step", 2, NOW, "ZeroDivisionError")
    assert info.stack is not None
    assert "test_failures.py" in info.stack
    assert "ZeroDivisionError: division by zero" in info.stack


class CardDeclinedHTTPError(Exception):
    pass


class Coded(Exception):
    def __init__(self, code: object) -> None:
        super().__init__("m")
        self.code = code


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CardDeclinedHTTPError("no funds"), "CARD_DECLINED_HTTP_ERROR", "no funds"),
        (ValueError(), "VALUE_ERROR", "ValueError"),
        (KeyError("name"), "KEY_ERROR", "missing key 'name'"),
        (Coded("INSUFFICIENT_FUNDS"), "INSUFFICIENT_FUNDS", "m"),
        (Coded(17), "CODED", "m"),
        (Coded("not a code!"), "CODED", "m"),
        (SystemExit(404), "SYSTEM_EXIT", "404"),
    ],
)
def test_every_exception_has_a_stable_code(error: BaseException, code: str, message: str) -> None:
    """The code is the exception's own if it has one, else its class's name; the message is never empty."""
    info = told(error)
    assert (info.code, info.message) == (code, message)


def test_the_errors_of_our_tree_keep_what_they_say() -> None:
    """An error of our tree keeps type, code, message, hint, context, flag and delay; task, time and stack are new."""
    info = told(ExecutionError("full", code="DISK_FULL", retry=True, retry_after=2.5, hint="wait", disk="sda"))
    assert (info.type, info.code, info.message, info.hint) == ("execution_error", "DISK_FULL", "full", "wait")
    assert (info.retryable, info.retry_after_ms, info.context) == (True, 2_500, {"disk": "sda"})
    assert info.task_id == "step"


def test_an_error_from_another_attempt_becomes_this_attempts_failure() -> None:
    """An error that a handler got from another execution keeps its meaning but not its task, time and stack."""
    theirs = ErrorInfo(
        type="execution_error",
        code="X",
        message="m",
        retryable=False,
        recoverable=False,
        task_id="other",
        attempt=9,
        stack="elsewhere",
    )
    info = told(errors.to_exception(theirs))
    assert (info.code, info.retryable, info.recoverable) == ("X", False, False)
    assert (info.task_id, info.attempt, info.timestamp) == ("step", 2, NOW)
    assert info.stack != "elsewhere"


def test_causes_are_told() -> None:
    """What lies below an exception stands in its context, nearest first, as in a traceback."""
    try:
        try:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        except OSError as below:
            raise LookupError("no price") from below
    except LookupError as error:
        info = describe(error, task_id="s", attempt=1, timestamp=NOW)
    assert info.context == {"causes": [f"ConnectionRefusedError: [Errno {errno.ECONNREFUSED}] refused"]}


def test_a_group_of_one_is_its_one_exception() -> None:
    """The single failure inside a TaskGroup is described as if it had not been wrapped."""

    async def handler() -> None:
        async def part() -> None:
            raise http_error(503, Retry_After="7")

        async with asyncio.TaskGroup() as group:
            group.create_task(part())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(handler())
    info = describe(caught.value, task_id="s", attempt=1, timestamp=NOW)
    assert (info.code, info.retryable, info.retry_after_ms) == ("HTTP_503", True, 7_000)
    assert info.stack is not None
    assert "part" in info.stack


def test_a_group_of_several_names_them() -> None:
    """A group of several failures is of unknown retryability and lists its members."""
    info = told(ExceptionGroup("several", [TypeError("a"), OSError("b")]))
    assert (info.code, info.retryable) == ("EXCEPTION_GROUP", None)
    assert info.context["errors"] == ["TypeError: a", "OSError: b"]


# Whether another try may help ----------------------------------------------------------------------------------------

TRANSIENT = [
    (TimeoutError(), "NETWORK_TIMEOUT"),
    (OSError(errno.ETIMEDOUT, "slow"), "NETWORK_TIMEOUT"),
    (ConnectionRefusedError(), "CONNECTION_REFUSED"),
    (OSError(errno.ECONNREFUSED, "refused"), "CONNECTION_REFUSED"),
    (ConnectionResetError(), "CONNECTION_RESET"),
    (ConnectionAbortedError(), "CONNECTION_ABORTED"),
    (BrokenPipeError(), "BROKEN_PIPE"),
    (ConnectionError(), "CONNECTION_ERROR"),
    (OSError(errno.EHOSTUNREACH, "far"), "HOST_UNREACHABLE"),
    (OSError(errno.ENETUNREACH, "far"), "NETWORK_UNREACHABLE"),
    (socket.gaierror(socket.EAI_NONAME, "who?"), "NAME_NOT_RESOLVED"),
    (urllib.error.URLError(ConnectionRefusedError()), "CONNECTION_REFUSED"),
    (urllib.error.URLError(socket.gaierror(-2, "who?")), "NAME_NOT_RESOLVED"),
    (httpx.ConnectTimeout("slow"), "NETWORK_TIMEOUT"),
    (httpx.ReadTimeout("slow"), "NETWORK_TIMEOUT"),
    (httpx.PoolTimeout("slow"), "NETWORK_TIMEOUT"),
    (httpx.ConnectError("refused"), "CONNECTION_ERROR"),
    (httpx.ReadError("broken"), "CONNECTION_ERROR"),
    (httpx.RemoteProtocolError("hung up"), "CONNECTION_ERROR"),
    (http_error(500), "HTTP_500"),
    (http_error(503), "HTTP_503"),
    (http_error(408), "HTTP_408"),
    (http_error(425), "HTTP_425"),
    (http_error(429), "RATE_LIMITED"),
    (RateLimited("slow down"), "rate_limited"),
    (errors.Unavailable("no server"), "unavailable"),
    (errors.Overloaded("full"), "overloaded"),
    (errors.WorkerLost("gone"), "WORKER_LOST"),
    (ExecutionError("m", code="ECONNRESET"), "ECONNRESET"),
    (ExecutionError("m", status_code=502), "execution_error"),
]

FINAL = [
    (TypeError("m"), "TYPE_ERROR"),
    (NameError("m"), "NAME_ERROR"),
    (UnboundLocalError("m"), "NAME_ERROR"),
    (AttributeError("m"), "ATTRIBUTE_ERROR"),
    (ImportError("m"), "IMPORT_ERROR"),
    (ModuleNotFoundError("m"), "IMPORT_ERROR"),
    (NotImplementedError(), "NOT_IMPLEMENTED"),
    (AssertionError(), "ASSERTION_FAILED"),
    (SyntaxError("m"), "SYNTAX_ERROR"),
    (IndentationError("m"), "SYNTAX_ERROR"),
    (json.JSONDecodeError("m", "{", 0), "INVALID_JSON"),
    (msgspec.DecodeError("m"), "INVALID_JSON"),
    (msgspec.ValidationError("m"), "INVALID_DATA"),
    (PermissionError(errno.EACCES, "no"), "PERMISSION_DENIED"),
    (http_error(400), "HTTP_400"),
    (http_error(401), "HTTP_401"),
    (http_error(403), "HTTP_403"),
    (http_error(404), "HTTP_404"),
    (http_error(422), "HTTP_422"),
    (ValidationError("bad"), "invalid"),
    (errors.PlanInvalid("bad"), "plan_invalid"),
    (ValidationError("bad", code="NETWORK_TIMEOUT"), "NETWORK_TIMEOUT"),
    (ExecutionError("m", status_code=404), "execution_error"),
]

UNKNOWN = [
    (ValueError("m"), "VALUE_ERROR"),
    (RuntimeError("m"), "RUNTIME_ERROR"),
    (FileNotFoundError(errno.ENOENT, "m"), "FILE_NOT_FOUND_ERROR"),
    (sqlite3.OperationalError("database is locked"), "OPERATIONAL_ERROR"),
    (http_error(302), "HTTP_STATUS_ERROR"),
    (ExecutionError("m"), "execution_error"),
]


@pytest.mark.parametrize(("error", "code"), TRANSIENT)
def test_transient_failures_may_be_retried(error: BaseException, code: str) -> None:
    """Trouble of the network, overload and 5xx, 408, 425, 429 are retryable under a stable code."""
    info = told(error)
    assert (info.code, info.retryable) == (code, True)
    assert may_retry(UNKNOWN_FINAL, info)


@pytest.mark.parametrize(("error", "code"), FINAL)
def test_lasting_failures_are_not_retried(error: BaseException, code: str) -> None:
    """Bad input, missing rights, mistakes in the program and other 4xx are final under a stable code."""
    info = told(error)
    assert (info.code, info.retryable) == (code, False)
    assert not may_retry(Policy(), info)


@pytest.mark.parametrize(("error", "code"), UNKNOWN)
def test_unknown_failures_are_left_to_the_policy(error: BaseException, code: str) -> None:
    """What no list knows is retried exactly if the policy retries unknown errors."""
    info = told(error)
    assert (info.code, info.retryable) == (code, None)
    assert may_retry(Policy(), info)
    assert not may_retry(UNKNOWN_FINAL, info)


def test_a_models_refusal_is_final() -> None:
    """A pydantic model that refuses data will refuse it again."""
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    assert told(caught.value).retryable is False


class Aiohttp(Exception):
    """As aiohttp.ClientResponseError looks: status and headers on the exception itself."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class Plain(Exception):
    """As SDKs of web services look."""

    def __init__(self, status_code: int) -> None:
        super().__init__("m")
        self.status_code = status_code


class FalsyResponse:
    """As requests.Response: false for every failure."""

    status_code = 503

    def __init__(self) -> None:
        self.headers = {"Retry-After": "1"}

    def __bool__(self) -> bool:
        return False


class Requests(OSError):
    response = FalsyResponse()


def urllib_error(status: int) -> urllib.error.HTTPError:
    headers = Message()
    headers["Retry-After"] = "3"
    return urllib.error.HTTPError("http://example.test/", status, "no", headers, None)


@pytest.mark.parametrize(
    ("error", "code", "retry_after_ms"),
    [
        (Aiohttp(502, {"retry-after": "2"}), "HTTP_502", 2_000),
        (Plain(503), "HTTP_503", None),
        (Requests("no"), "HTTP_503", 1_000),
        (urllib_error(503), "HTTP_503", 3_000),
        (urllib_error(429), "RATE_LIMITED", 3_000),
        (http_error(503, Retry_After="4"), "HTTP_503", 4_000),
    ],
)
def test_http_clients_are_recognised_by_shape(error: BaseException, code: str, retry_after_ms: int | None) -> None:
    """Status and `Retry-After` are found wherever the well-known HTTP clients keep them."""
    info = told(error)
    assert (info.code, info.retry_after_ms) == (code, retry_after_ms)
    assert info.context["status_code"] in (429, 502, 503)


def test_a_clients_error_is_named_after_its_cause() -> None:
    """A client's vague connection error takes the code of the network error that lies below it."""
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = OSError("several")
    error.__cause__.__context__ = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert told(error).code == "CONNECTION_REFUSED"


# When to try again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("2", 2_000),
        (" 0 ", 0),
        ("1.5", 1_500),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60_000),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0),
        ("99999999999999", limits.delay_ms),
        ("-3", 0),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_the_retry_after_header(header: str, expected: int | None) -> None:
    """`Retry-After` counts in seconds or up to a date, never below zero; nonsense is ignored."""
    assert told(http_error(503, Retry_After=header)).retry_after_ms == expected


class Waiting(Exception):
    def __init__(self, retry_after: object) -> None:
        super().__init__("m")
        self.retry_after = retry_after


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (2, 2_000),
        (0.25, 250),
        (timedelta(minutes=1), 60_000),
        ("3", 3_000),
        (float("nan"), None),
        (float("inf"), limits.delay_ms),
        (True, None),
        (object(), None),
        (None, None),
    ],
)
def test_the_exceptions_own_delay(asked: object, expected: int | None) -> None:
    """A `retry_after` on the exception is seconds or a timedelta; nonsense is ignored."""
    assert told(Waiting(asked)).retry_after_ms == expected


def test_nonsense_in_our_own_error_is_harmless() -> None:
    """A delay that is no number does not stop an ExecutionError from being described."""
    info = told(ExecutionError("m", retry=True, retry_after=float("nan")))
    assert (info.code, info.retryable, info.retry_after_ms) == ("execution_error", True, None)


# Classifiers ---------------------------------------------------------------------------------------------------------

Registered = Callable[[Classifier], None]


@pytest.mark.parametrize("retry", [True, False])
def test_the_explicit_flag_beats_classifier_and_lists(registered: Registered, retry: bool) -> None:
    """`retry=` on the error decides, whatever a classifier or a code says."""
    registered(lambda error: not retry)
    code = "TYPE_ERROR" if retry else "NETWORK_TIMEOUT"
    assert told(ExecutionError("m", code=code, retry=retry)).retryable is retry


def test_a_classifier_beats_the_lists(registered: Registered) -> None:
    """A classifier's answer stands above the built-in lists, also for errors of our tree without a flag."""
    registered(lambda error: isinstance(error, TypeError))
    assert told(TypeError("m")).retryable is True
    assert told(TimeoutError()).retryable is False
    assert told(ExecutionError("m", code="NETWORK_TIMEOUT")).retryable is False


def test_validation_errors_are_not_open_to_classifiers(registered: Registered) -> None:
    """A ValidationError is never retried, whatever a classifier says."""
    registered(lambda error: True)
    assert told(ValidationError("m")).retryable is False


def test_a_classifier_may_pass(registered: Registered) -> None:
    """None leaves the answer to the classifier registered before, and in the end to the lists."""
    registered(lambda error: False if isinstance(error, ValueError) else None)
    registered(lambda error: None)
    assert told(ValueError("m")).retryable is False
    assert told(TimeoutError()).retryable is True


def test_the_classifier_registered_last_is_asked_first(registered: Registered) -> None:
    """A later classifier overrides an earlier one."""
    registered(lambda error: False)
    registered(lambda error: True)
    assert told(ValueError("m")).retryable is True


def test_a_classification_names_code_and_delay(registered: Registered) -> None:
    """A Classification gives the code and the delay as well; what it leaves open the code decides."""
    registered(lambda error: Classification(code="RATE_LIMITED", retry_after=1.5))
    info = told(ValueError("m"))
    assert (info.code, info.retryable, info.retry_after_ms) == ("RATE_LIMITED", True, 1_500)


def test_a_failing_classifier_is_passed_over(registered: Registered, caplog: pytest.LogCaptureFixture) -> None:
    """A classifier that raises or answers nonsense counts as passing, with one warning in all."""

    def broken(error: BaseException) -> bool:
        raise RuntimeError("oops")

    def silly(error: BaseException) -> Any:
        return "yes"

    registered(broken)
    registered(silly)
    with caplog.at_level(logging.WARNING, logger="esexec.failures"):
        for _ in range(3):
            assert told(TimeoutError()).retryable is True
    assert len(caplog.records) == 2


def test_a_classifier_can_be_removed() -> None:
    """A removed classifier is asked no more; removing it again does nothing."""

    @classifier
    def never(error: BaseException) -> bool:
        return False

    assert told(ValueError("m")).retryable is False
    remove_classifier(never)
    remove_classifier(never)
    assert told(ValueError("m")).retryable is None


# Hostile exceptions --------------------------------------------------------------------------------------------------


class Hostile(Exception):
    """Everything that can be asked of it fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    @property
    def code(self) -> str:
        raise RuntimeError("no code")

    @property
    def status_code(self) -> int:
        raise SystemError("no status")

    @property
    def response(self) -> object:
        raise RuntimeError("no response")

    @property
    def retry_after(self) -> float:
        raise RuntimeError("no delay")


class HalfBuilt(ExecutionError):
    def __init__(self) -> None:
        """Forgets to call its parent."""


class Miscast(EsexecError):
    type = "catastrophe"  # type: ignore[assignment]


DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "error",
    [
        Hostile(),
        HalfBuilt(),
        Miscast("m"),
        ValueError("\ud800 lone"),
        ExecutionError("\udfff", code="\ud800", hint="\ud800", key="\ud800"),
        ExecutionError("m", thing=object(), nan=float("nan"), hostile=Hostile(), cycle=CYCLE, keys={(1, 2): 3}),
        ExecutionError("m", deep=DEEP),
        ExecutionError(None, code=5),  # type: ignore[arg-type]
        RecursionError("deep"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__.encode("ascii", "replace").decode(),
)
def test_any_exception_can_be_told(error: BaseException) -> None:
    """However an exception misbehaves, it is described, and the description survives the way through JSON."""
    info = told(error)
    assert info.code
    assert info.message
    check_shape(msgspec.to_builtins(info), path="error")
    assert msgspec.json.decode(msgspec.json.encode(info), type=ErrorInfo) == info


@given(st.text(st.characters(codec=None), max_size=200), st.dictionaries(st.text(), st.floats() | st.text() | st.binary()))
def test_any_text_can_be_told(text: str, context: dict[str, Any]) -> None:
    """Any text and any context survive the way through JSON."""
    error = ExecutionError(text)
    error.context = context
    for one in (told(error), told(ValueError(text))):
        assert msgspec.json.decode(msgspec.json.encode(one), type=ErrorInfo) == one


def test_long_texts_are_cut_in_the_middle() -> None:
    """Message, stack and context are bounded; of a text the beginning and the end remain."""
    info = told(ExecutionError("begin" + "x" * 10**6 + "end", big="y" * 10**6))
    assert len(info.message) == limits.text_chars
    assert info.message.startswith("begin")
    assert info.message.endswith("end")
    assert info.stack is not None
    assert len(info.stack) == limits.stack_chars
    assert len(msgspec.json.encode(info.context)) < limits.text_chars


def test_a_deep_recursion_can_be_told() -> None:
    """A stack overflow in a handler leaves a bounded traceback."""

    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    with pytest.raises(RecursionError) as caught:
        deeper(0)
    info = describe(caught.value, task_id="s", attempt=1, timestamp=NOW)
    assert info.stack is not None
    assert len(info.stack) <= limits.stack_chars


def test_a_cycle_of_causes_ends() -> None:
    """Exceptions that cause each other are told once each."""
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert told(first).context["causes"] == ["ValueError: b"]


def test_whether_to_retry_has_one_name() -> None:
    """`retryable=`, as it is called in stored errors, is not silently kept as context: it would be tried again all the same."""
    with pytest.raises(TypeError, match="ExecutionError takes retry="):
        ExecutionError("no", retryable=False)


@pytest.mark.parametrize(("error", "message"), [("no stock", "no stock"), ({"left": 0}, "{'left': 0}")])
def test_what_an_err_says_is_the_message(error: Any, message: str) -> None:
    """A text as it is; anything else as Python writes it."""
    failure = as_failure(Err(error))
    assert (told(failure).message, told(failure).code) == (message, "error")
