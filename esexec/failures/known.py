"""The built-in lists: what is known of exceptions that Python, its network modules and HTTP clients raise.

HTTP clients are recognised by what their errors look like, never by importing them.
"""

import errno
import json
import socket
from typing import Any, Final, NamedTuple

import msgspec

from esexec.domain.retry import by_status


class Known(NamedTuple):
    """A stable code, and whether another try may help; None = nobody knows."""

    code: str
    retryable: bool | None


_BUILT_IN: Final[tuple[tuple[type[BaseException], Known], ...]] = (
    # Most special first: the first match wins.
    (socket.gaierror, Known("NAME_NOT_RESOLVED", True)),
    (socket.herror, Known("NAME_NOT_RESOLVED", True)),
    (ConnectionRefusedError, Known("CONNECTION_REFUSED", True)),
    (ConnectionResetError, Known("CONNECTION_RESET", True)),
    (ConnectionAbortedError, Known("CONNECTION_ABORTED", True)),
    (BrokenPipeError, Known("BROKEN_PIPE", True)),
    (ConnectionError, Known("CONNECTION_ERROR", True)),
    (TimeoutError, Known("NETWORK_TIMEOUT", True)),
    (PermissionError, Known("PERMISSION_DENIED", False)),
    (json.JSONDecodeError, Known("INVALID_JSON", False)),
    (msgspec.ValidationError, Known("INVALID_DATA", False)),
    (msgspec.DecodeError, Known("INVALID_JSON", False)),
    (SyntaxError, Known("SYNTAX_ERROR", False)),
    (TypeError, Known("TYPE_ERROR", False)),
    (NameError, Known("NAME_ERROR", False)),
    (AttributeError, Known("ATTRIBUTE_ERROR", False)),
    (ImportError, Known("IMPORT_ERROR", False)),
    (NotImplementedError, Known("NOT_IMPLEMENTED", False)),
    (AssertionError, Known("ASSERTION_FAILED", False)),
)

_BY_ERRNO: Final = {
    errno.ECONNREFUSED: Known("CONNECTION_REFUSED", True),
    errno.ECONNRESET: Known("CONNECTION_RESET", True),
    errno.ECONNABORTED: Known("CONNECTION_ABORTED", True),
    errno.EPIPE: Known("BROKEN_PIPE", True),
    errno.ETIMEDOUT: Known("NETWORK_TIMEOUT", True),
    errno.EHOSTUNREACH: Known("HOST_UNREACHABLE", True),
    errno.EHOSTDOWN: Known("HOST_UNREACHABLE", True),
    errno.ENETUNREACH: Known("NETWORK_UNREACHABLE", True),
    errno.ENETDOWN: Known("NETWORK_UNREACHABLE", True),
    errno.ENETRESET: Known("CONNECTION_RESET", True),
}

_BY_NAME: Final = {
    # (top-level package, class) anywhere in the exception's ancestry. The network ones say little themselves, so that
    # their causes are looked at for something more precise.
    ("httpx", "TimeoutException"): Known("NETWORK_TIMEOUT", True),
    ("httpx", "NetworkError"): Known("CONNECTION_ERROR", True),
    ("httpx", "RemoteProtocolError"): Known("CONNECTION_ERROR", True),
    ("requests", "Timeout"): Known("NETWORK_TIMEOUT", True),
    ("requests", "ConnectionError"): Known("CONNECTION_ERROR", True),
    ("requests", "ChunkedEncodingError"): Known("CONNECTION_ERROR", True),
    ("urllib3", "TimeoutError"): Known("NETWORK_TIMEOUT", True),
    ("urllib3", "HTTPError"): Known("CONNECTION_ERROR", True),
    ("aiohttp", "ClientConnectionError"): Known("CONNECTION_ERROR", True),
    ("aiohttp", "ClientPayloadError"): Known("CONNECTION_ERROR", True),
    ("http", "IncompleteRead"): Known("CONNECTION_ERROR", True),
    ("urllib", "URLError"): Known("CONNECTION_ERROR", None),
    ("nats", "NoRespondersError"): Known("NO_RESPONDERS", True),
    ("pydantic_core", "ValidationError"): Known("INVALID_DATA", False),
}

_STATUSES: Final = range(400, 600)
_CHAIN: Final = 10


def known(error: BaseException) -> Known | None:
    """What the lists say of this exception; None if they do not know it."""
    status = status_of(error)
    if status is not None:
        return Known("RATE_LIMITED" if status == 429 else f"HTTP_{status}", by_status(status))
    by_name = _by_name(error)
    if by_name is not None and by_name.code == "CONNECTION_ERROR":
        return next((found for cause in _causes(error) if (found := _network(cause))), by_name)
    return by_name or _built_in(error)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of a failed response that this exception stands for (4xx or 5xx), wherever the client put it."""
    candidates = [attribute(error, "status_code"), attribute(error, "status")]
    response = attribute(error, "response")
    if response is not None:
        candidates += [attribute(response, "status_code"), attribute(response, "status")]
    if ("urllib", "HTTPError") in _ancestry(error):
        candidates.append(attribute(error, "code"))
    for candidate in candidates:
        if isinstance(candidate, int) and candidate in _STATUSES:
            return int(candidate)
    return None


def header_of(error: BaseException, name: str) -> str | None:
    """A header of the response that this exception stands for."""
    for holder in (attribute(error, "response"), error):
        headers = attribute(holder, "headers")
        for spelling in (name, name.lower()):
            try:
                value = headers.get(spelling)
            except Exception:
                break
            if isinstance(value, str):
                return value
    return None


def attribute(thing: Any, name: str) -> Any:
    """`getattr` that gives None where there is nothing, or where asking fails."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def _by_name(error: BaseException) -> Known | None:
    return next((_BY_NAME[name] for name in _ancestry(error) if name in _BY_NAME), None)


def _built_in(error: BaseException) -> Known | None:
    for kind, found in _BUILT_IN:
        if isinstance(error, kind):
            return found
    return _BY_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else None


def _network(error: BaseException) -> Known | None:
    """As `_built_in`, but only for errors of the network: what else lies below a failed connection is not its reason."""
    found = _built_in(error) if isinstance(error, OSError) else None
    return found if found is not None and found.retryable else None


def _ancestry(error: BaseException) -> list[tuple[str, str]]:
    return [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__]


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and what lies below it, from the top; clients hide causes in attributes and arguments as well."""
    chain: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(chain) < _CHAIN:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or any(one is other for other in chain):
            continue
        chain.append(one)
        waiting += [attribute(one, "reason"), attribute(one, "os_error"), one.__cause__, one.__context__, *one.args[:1]]
    return chain
