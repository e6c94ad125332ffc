"""What a handler tells while it runs: how far it is, and log lines. Sent at once, kept for a while, never part of the log.

Nothing here fails a handler, waits, or is unbounded: what is too long is cut, what is too much is left out and counted, what
cannot be written as JSON is told as its `repr`. May be used from any thread.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from esexec.domain import limits
from esexec.domain.messages import Dispatch, Level, LogSignal, ProgressSignal
from esexec.tasks.foreign import enc_hook
from esexec.world import now

logger = logging.getLogger("esexec.worker")

_REPR_CHARS = 200
_NAMES_TOLD = 20
_INTERVAL_S = limits.progress_interval_ms / 1000


class Outlet(Protocol):
    """Takes what the handlers of a worker tell, from any thread, and never raises."""

    @property
    def worker(self) -> str: ...

    def send(self, execution_id: str, kind: str, data: bytes) -> None:
        """`kind`: `progress` or `log`."""


class Voice:
    """One attempt, as it tells of itself. `ctx.log` is one: a message, with arguments for its `%s` as in
    `logging`, and, by name, whatever belongs to it.

    Without an outlet (in the test of a handler) nothing is sent.
    """

    __slots__ = ("_dispatch", "_held", "_left_out", "_lines", "_lock", "_outlet", "_second", "_sent_mono")

    def __init__(self, dispatch: Dispatch, outlet: Outlet | None) -> None:
        self._dispatch, self._outlet = dispatch, outlet
        self._lock = threading.Lock()
        self._held: bytes | None = None
        """Progress that came too soon after the one before."""
        self._sent_mono = -_INTERVAL_S
        self._second = self._lines = self._left_out = 0

    # Log lines ---------------------------------------------------------------------------------------------------------------

    def debug(self, message: str, /, *args: Any, **fields: Any) -> None:
        self._log("debug", message, args, fields)

    def info(self, message: str, /, *args: Any, **fields: Any) -> None:
        self._log("info", message, args, fields)

    def warning(self, message: str, /, *args: Any, **fields: Any) -> None:
        self._log("warning", message, args, fields)

    def error(self, message: str, /, *args: Any, **fields: Any) -> None:
        self._log("error", message, args, fields)

    def critical(self, message: str, /, *args: Any, **fields: Any) -> None:
        """As `error`."""
        self._log("error", message, args, fields)

    def exception(self, message: str, /, *args: Any, **fields: Any) -> None:
        """As `error`; what was raised is not told, a field can be."""
        self._log("error", message, args, fields)

    def _log(self, level: Level, message: Any, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        if self._outlet is None:
            return
        with self._lock:
            second = int(time.monotonic())
            if second != self._second:
                self._second, self._lines = second, 0
            self._lines += 1
            if self._lines > limits.log_lines_per_second:
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        self._send_line(level, _line(message, args) if args else _text(message), _fields(fields) if fields else {}, left_out)

    def _send_line(self, level: Level, message: str, fields: dict[str, Any], left_out: int) -> None:
        about, outlet = self._dispatch, self._outlet
        assert outlet is not None
        line = LogSignal(
            execution_id=about.execution_id,
            step=about.step,
            attempt=about.attempt,
            run=about.run,
            time=now(),
            worker=outlet.worker,
            level=level,
            message=message,
            fields=fields,
            left_out=left_out,
        )
        outlet.send(about.execution_id, "log", msgspec.json.encode(line))

    # Progress ----------------------------------------------------------------------------------------------------------------

    def progress(self, fraction: Any, text: Any = "") -> None:
        """Tell how far it is. What comes too soon is held, and sent later unless something newer takes its place."""
        if self._outlet is None:
            return
        part = _part(fraction)
        if part is None:
            logger.warning("%s: %.80r is no progress, 0 to 1 is", self._dispatch.step, fraction)
            return
        about = self._dispatch
        signal = ProgressSignal(
            execution_id=about.execution_id,
            step=about.step,
            attempt=about.attempt,
            run=about.run,
            time=now(),
            worker=self._outlet.worker,
            fraction=part,
            text=_text(text) if text else "",
        )
        data, now_mono = msgspec.json.encode(signal), time.monotonic()
        with self._lock:
            if now_mono - self._sent_mono < _INTERVAL_S:
                self._held = data
                return
            self._held, self._sent_mono = None, now_mono
            self._outlet.send(about.execution_id, "progress", data)

    def look_after(self, now_mono: float) -> None:
        """Called now and then by the worker: sends what was held, once it is time."""
        if self._held is not None and now_mono - self._sent_mono >= _INTERVAL_S:
            self._send_held(now_mono)

    def end(self) -> None:
        """The attempt is over: what was held is sent, and what was left out is told."""
        if self._held is not None:
            self._send_held(time.monotonic())
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._send_line("warning", f"{left_out} further lines were left out", {}, left_out)

    def _send_held(self, now_mono: float) -> None:
        with self._lock:
            data, self._held, self._sent_mono = self._held, None, now_mono
            if data is not None and self._outlet is not None:
                self._outlet.send(self._dispatch.execution_id, "progress", data)


# What can be sent ----------------------------------------------------------------------------------------------------------


def _part(fraction: Any) -> float | None:
    """The fraction, kept between 0 and 1; None for what is no number."""
    try:
        part = float(fraction)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if part != part or isinstance(fraction, str) else min(1.0, max(0.0, part))


def _line(message: Any, args: tuple[Any, ...]) -> str:
    """`message % args`, as in `logging`; where they do not fit, one behind the other."""
    text = _text(message)
    try:
        return _text(text % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) else args))
    except Exception:  # a log line is not to fail its handler
        return _text(" ".join([text, *map(_text, args)]))


def _text(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else str(value)
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    except Exception:  # an object of the user's that cannot say what it is
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limits.live_text_chars else text[: limits.live_text_chars - 1] + "…"


def _fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as builtins that have a JSON form, within their limit."""
    told = {name: _told(value) for name, value in fields.items()}
    size = sum(len(data) + len(name) + 4 for name, data in told.items())
    if size > limits.live_fields_bytes:
        names = [name[:64] for name in list(told)[:_NAMES_TOLD]]
        return {"fields_left_out": names, "bytes": size}
    return {_text(name): msgspec.Raw(data) for name, data in told.items()}


def _told(value: Any) -> bytes:
    """The JSON of a value; of what has none, that of its repr, cut."""
    try:
        data = msgspec.json.encode(value, enc_hook=enc_hook)
        if len(data) <= 2 * limits.nesting_depth or data.count(b"{") + data.count(b"[") <= limits.nesting_depth:
            return data
    except Exception:  # whatever it is: a log line is not to fail its handler
        pass
    try:
        return msgspec.json.encode(repr(value)[:_REPR_CHARS])
    except Exception:
        return msgspec.json.encode(f"<{type(value).__name__}>")
