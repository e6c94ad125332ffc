"""What handlers tell while they run, in lines for the terminal: log lines, and progress where nothing is redrawn."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from rich.text import Text

from esexec.cli.terminal import text
from esexec.results import ExecutionUpdate, LogMessage, TaskProgress

_LOOKS: Final = {"debug": "bright_black", "info": "", "warning": "yellow", "error": "red"}
_MOVED: Final = 10
"""Progress is told again when it has moved by so many per cent."""
_VALUE_CHARS: Final = 200


def log_line(message: LogMessage) -> Text:
    """`  info  load: 12 rows read  file=a.csv`."""
    said = "".join(f"  {name}={_value(value)}" for name, value in message.context.items())
    missing = f"  ({message.left_out} lines before this left out)" if message.left_out else ""
    return text(f"{message.level:>7}  {message.task_id}: {message.message}{said}{missing}", _LOOKS[message.level])


def progress_words(progress: TaskProgress) -> str:
    """`40 %, half way`."""
    return f"{100 * progress.fraction:.0f} %" + (f", {progress.text}" if progress.text else "")


def _value(value: Any) -> str:
    words = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return words if len(words) <= _VALUE_CHARS else words[: _VALUE_CHARS - 1] + "…"


class Telling:
    """Lines for what an update says besides its events; remembers what was told. `debug`: debug lines as well."""

    def __init__(self, *, debug: bool = False) -> None:
        self._debug = debug
        self._told: dict[str, tuple[int, int]] = {}
        """By step: the attempt, and the per cent that were told last."""

    def messages(self, update: ExecutionUpdate) -> Iterator[Text]:
        return (log_line(one) for one in update.messages if self._debug or one.level != "debug")

    def progress(self, update: ExecutionUpdate) -> Iterator[Text]:
        """The progress that has moved noticeably, or is an attempt's first."""
        for step, progress in update.task_progress.items():
            attempt, told = self._told.get(step, (0, 0))
            percent = round(100 * progress.fraction)
            if attempt != progress.attempt or abs(percent - told) >= _MOVED:
                self._told[step] = progress.attempt, percent
                yield text(f"         {step}: {progress_words(progress)}")
