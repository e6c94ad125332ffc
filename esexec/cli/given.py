"""What is given on the command line → values: input, tasks, queues. Whatever is wrong with it is a `ValidationError`."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from esexec.cli.completing import execution_ids, plan_ids
from esexec.domain import limits
from esexec.domain.errors import EsexecError, ValidationError
from esexec.domain.explain import did_you_mean
from esexec.domain.ids import is_user_id
from esexec.domain.settings import PRESETS
from esexec.plans import Plan
from esexec.tasks import ANY_TASK, Task, collect

TasksOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks", metavar="MODULE", help="Module or file with tasks: pkg.mod, file.py; else `tasks` of the settings. Repeatable."
    ),
]
InputOption = Annotated[str | None, typer.Option("--input", metavar="JSON|@FILE", help="The input; @- reads stdin.")]
QueueOption = Annotated[
    list[str] | None,
    typer.Option(
        "--queue", metavar="Q[=N]", help="Queue to serve, with N attempts at a time instead of --concurrency. Repeatable."
    ),
]
ConcurrencyOption = Annotated[int, typer.Option("--concurrency", metavar="N", min=1, help="Attempts at a time, per queue.")]
PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="The plan, YAML or JSON.", show_default=False)]
ExecutionIdArgument = Annotated[
    str, typer.Argument(metavar="ID", autocompletion=execution_ids, help="The execution.", show_default=False)
]
OfExecutionOption = Annotated[
    str | None,
    typer.Option("--execution", metavar="ID", autocompletion=execution_ids, help="Only of this execution."),
]
PlanIdOption = Annotated[
    str | None, typer.Option("--plan", metavar="ID", autocompletion=plan_ids, help="Of the plan with this id.")
]
ExecutionIdOption = Annotated[
    str | None, typer.Option("--execution-id", metavar="ID", help="Id of the execution; the same start again follows it.")
]
PriorityOption = Annotated[
    int | None,
    typer.Option(
        "--priority", min=0, max=limits.priority_max, help="0 to 10; 10 goes first, 5 is usual.", metavar="N", show_default=False
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; stands in the history.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow it to its end.")]
CheckpointArgument = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="The checkpoint's id.", show_default=False)]

# When it starts, when it must have ended, when its state is kept; and settings by name.
StartAtOption = Annotated[
    str | None, typer.Option("--start-at", metavar="TIME", help="Not before: 2027-01-31T08:00:00Z, or with another offset.")
]
DelayOption = Annotated[str | None, typer.Option("--delay", metavar="DURATION", help="Not before that much time has passed.")]
DeadlineOption = Annotated[
    str | None, typer.Option("--deadline", metavar="TIME|DURATION", help="It fails if it has not ended by then.")
]
ExecutionTimeoutOption = Annotated[
    str | None, typer.Option("--execution-timeout", metavar="DURATION", help="Of the whole, from its first step.")
]
CheckpointIntervalOption = Annotated[
    str | None, typer.Option("--checkpoint-interval", metavar="DURATION", help="A checkpoint that often.")
]
CheckpointEveryOption = Annotated[
    str | None, typer.Option("--checkpoint-every", metavar="task", help="A checkpoint after every task that completed.")
]
_DURATIONS = frozenset({"delay", "execution_timeout", "checkpoint_interval"})
PresetOption = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help=f"Settings for a kind of work: {', '.join(PRESETS)}.")
]


def read_time(text: str, option: str) -> datetime:
    """The value of an option that takes a time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.utcoffset() is None:
        hint = "as in 2027-01-31T08:00:00Z or 2027-01-31T09:00:00+01:00"
        what = "is no time" if time is None else "has no offset from UTC"
        raise ValidationError(f"{option}: {text[:80]!r} {what}", code="bad_time", hint=hint)
    return time


def read_moment(text: str, since: datetime, until: datetime, option: str) -> datetime:
    """A time in the life of what began at `since`: a time of day is the first such moment in it, in UTC; where that would be
    after `until`, the one before it began.

    Without a fraction it is the end of that second: what is shown as of 12:03:07 had happened by then.
    """
    begin, of_day = since.astimezone(UTC), re.fullmatch(r"\d\d:\d\d(:\d\d(\.\d+)?)?", text, re.ASCII)
    time = read_time(f"{begin:%Y-%m-%d}T{text}Z" if of_day else text, option)
    if "." not in text:
        time += timedelta(seconds=1, microseconds=-1)
    if of_day and time < begin and (next_day := time + timedelta(days=1)) <= until:
        return next_day
    return time


def read_deadline(text: str, option: str) -> datetime | str | float:
    """A time, or a duration."""
    return read_time(text, option) if re.match(r"\d{4}-", text) else read_duration(text)


def read_duration(text: str) -> str | float:
    """A duration as it stands; a bare number is seconds."""
    return float(text) if re.fullmatch(r"\d{1,15}(\.\d{1,15})?", text, re.ASCII) else text


def time_options(start_at: str | None, deadline: str | None, **others: Any) -> dict[str, Any]:
    """Options of a start, from what was given of them."""
    said = {name: read_duration(value) if name in _DURATIONS else value for name, value in others.items() if value is not None}
    if start_at is not None:
        said["start_at"] = read_time(start_at, "--start-at")
    if deadline is not None:
        said["deadline"] = read_deadline(deadline, "--deadline")
    return said


def read_metadata(given: Iterable[str] | None) -> dict[str, Any]:
    """`K=V` → metadata; a value that is JSON is that, anything else is text."""
    metadata: dict[str, Any] = {}
    for text in given or ():
        key, found, value = text.partition("=")
        if not found or not key:
            raise ValidationError(f"--meta {text[:80]!r} is no pair", code="bad_metadata", hint="--meta KEY=VALUE")
        try:
            metadata[key] = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            metadata[key] = value
    return metadata


def read_input(text: str | None) -> Any:
    """The value of `--input`: JSON, or the file behind an @, or stdin behind `@-`."""
    if text is None:
        return None
    where = "--input"
    if text.startswith("@"):
        where, text = _text_of(text[1:])
    try:
        text.encode()  # bytes that were no UTF-8 came in as lone surrogates
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if error.lineno > 1 else where
        hint = "strings need double quotes; put a file's name behind @" if where == "--input" else None
        raise ValidationError(f"{place}: {error.msg} at column {error.colno}", code="bad_input", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"{where}: {error}", code="bad_input") from None


def _text_of(name: str) -> tuple[str, str]:
    try:
        data = sys.stdin.buffer.read(limits.object_bytes + 1) if name == "-" else Path(name).read_bytes()
        if len(data) > limits.object_bytes:
            hint = f"at most {limits.object_bytes} bytes (limits.object_bytes)"
            raise ValidationError(f"{name}: larger than that", code="too_large", hint=hint)
        return "stdin" if name == "-" else name, data.decode("utf-8-sig")
    except OSError as error:
        raise ValidationError(f"{name}: {error.strerror or error}", code="bad_input", hint="--input @FILE") from None
    except UnicodeDecodeError:
        raise ValidationError(f"{name}: not UTF-8", code="bad_input") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def needed(tasks: Sequence[str] | None, settings: Sequence[str]) -> list[str]:
    """The modules with tasks: as given, else by the settings. Raises `ValidationError` (`no_tasks`) if there are none."""
    places = [*(tasks or settings)]
    if not places:
        hint = "name a module or a file with --tasks, or in `tasks` of esexec.toml"
        raise ValidationError("no tasks are named", code="no_tasks", hint=hint)
    return places


def load_tasks(places: Sequence[str]) -> dict[str, Task[..., Any]]:
    """The tasks of all modules, by name."""
    found: list[Task[..., Any]] = []
    for place in places:
        with importing(place, "tasks_broken"):
            found += collect(place).values()
    return collect(found)


@contextmanager
def importing(place: str, code: str) -> Iterator[None]:
    """Whatever a module of the user's throws while it is imported is told as a ValidationError with this code."""
    try:
        yield
    except EsexecError:
        raise
    except Exception as error:
        message = f"{place} cannot be imported: {type(error).__name__}: {error}{_where(error)}"
        raise ValidationError(message, code=code, hint="--verbose shows the traceback") from error


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return ""  # its message says where
    trace, last = error.__traceback__, None
    while trace is not None:
        last, trace = trace, trace.tb_next
    return f" ({last.tb_frame.f_code.co_filename}:{last.tb_lineno})" if last else ""


def read_queues(given: Iterable[str] | None, concurrency: int) -> dict[str, int]:
    """`Q` and `Q=N` → slots by queue; none given: the default one."""
    queues: dict[str, int] = {}
    for text in given or ("default",):
        name, found, number = text.partition("=")
        hint = "--queue NAME or --queue NAME=N, N at least 1"
        if not is_user_id(name) or (found and not (number.isdecimal() and 0 < int(number) < 100_000)):
            raise ValidationError(f"--queue {text!r} is no queue", code="bad_queue", hint=hint)
        if name in queues:
            raise ValidationError(f"--queue {name} is given twice", code="bad_queue", hint=hint)
        queues[name] = int(number) if found else concurrency
    return queues


def check_tasks(plan: Plan, tasks: dict[str, Task[..., Any]]) -> None:
    """Refuse a plan with a task that is not among these, its step's own, its fallback or its compensation: it could only fail."""
    for step in () if ANY_TASK in tasks else plan.spec.steps:
        for task in (step.task, step.fallback, step.compensate):
            if task is not None and task not in tasks:
                hint = did_you_mean(task, tasks)
                raise ValidationError(f"step {step.id}: --tasks has no task `{task}`", code="unknown_task", hint=hint)


def queues_of(plan: Plan, tasks: dict[str, Task[..., Any]]) -> set[str]:
    """Every queue that an attempt of the plan can wait on."""
    named = {settings.queue for settings in (plan.spec.config, *plan.spec.steps, *(task.settings for task in tasks.values()))}
    return {"default"} | {queue for queue in named if queue}
