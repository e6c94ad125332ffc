"""`esexec stats`: how executions and their steps went, in figures. Answered by the projections."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer

from esexec.cli.call import Call
from esexec.cli.lists import WatchOption, read_plan_id, read_since, watched
from esexec.cli.verb import verb
from esexec.domain.errors import ValidationError
from projections.statistics_asks import By, ExecutionStatistics, ExecutionTotals, TaskBy, TaskStatistics, TaskTotals, Undoings

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_DIM: Final = "bright_black"
_WELL: Final = 0.99
"""From here on a success rate is green; below `_HARDLY` red."""
_HARDLY: Final = 0.9
_FAILURES: Final = 10
_STYLES: Final = {"completed": "", "failed": "red", "rolled_back": "yellow"}
_SPARED: Final = ("completed", "mean")
"""Columns that a narrow terminal is not shown."""


def register(app: typer.Typer) -> None:
    verb(app)(stats)


async def stats(
    call: Call,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of this plan; with --tasks, of this task.")] = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="ID", help="Of the plan with this id.")] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="Of the steps of executions instead.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME|AGE", help="Created since then, or so long ago; from the full hour.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME|AGE", help="Created before; to the full hour.")] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="WHAT", help="A line for each name, plan, hour or day.")] = None,
    watch: WatchOption = False,
) -> None:
    """Tell how executions went, or with --tasks their steps: how many, how they ended, how long they took."""
    if tasks and plan is not None:
        raise ValidationError("figures of steps are not told by plan", code="usage", hint="without --plan, or without --tasks")
    said: dict[str, Any] = {"name": name, "plan_id": read_plan_id(plan), "by": _read_by(by, tasks)}
    said |= {"since": read_since(since, "--since"), "until": read_since(until, "--until")}
    given: Any = {key: value for key, value in said.items() if value is not None}
    async with call.client(asks=True) as (client, _):

        async def ask() -> Any:
            return await (client.task_stats(**given) if tasks else client.stats(**given))

        await watched(call, ask, picture_of_tasks if tasks else picture_of_executions, watch)


def _read_by(by: str | None, tasks: bool) -> str | None:
    known = [one.removesuffix("_id") for one in get_args(TaskBy if tasks else By)]
    if by is not None and by not in known:
        raise ValidationError(f"--by {by[:40]!r} is not known", code="usage", hint=f"one of {', '.join(known)}")
    return "plan_id" if by == "plan" else by


# What is shown -------------------------------------------------------------------------------------------------------------


def picture_of_executions(found: ExecutionStatistics, width: int) -> "RenderableType":
    """How executions went, on so many columns."""
    rollbacks = found.rollbacks
    rolled_back = _counted({"wholly": rollbacks.completed, "in part": rollbacks.partial})
    facts = [
        ("executions", _statuses(found)),
        ("succeeded", _rate(found.success_rate)),
        ("took", _text(_spread(found.average_execution_time_ms, found.p50_ms, found.p95_ms, found.p99_ms))),
        ("steps", _text(_steps(found))),
        ("rolled back", _text(f"{rolled_back}; steps: {_undone(rollbacks.steps)}" if rolled_back else "")),
        ("  by step", _text("; ".join(f"{name}: {_undone(steps)}" for name, steps in _most(rollbacks.by_step)))),
        ("failed of", _text(_counted(dict(_most(found.failures))), "red")),
    ]
    lines = {name: _line(one, one.average_execution_time_ms) for name, one in found.groups.items()}
    return _picture(found, facts, lines, width)


def picture_of_tasks(found: TaskStatistics, width: int) -> "RenderableType":
    """How steps went, on so many columns."""
    answers = _spread(None, found.answer_p50_ms, found.answer_p95_ms, found.answer_p99_ms)
    retries = f"{found.retries:,}, {found.average_retries:.2f} each" if found.retries and found.average_retries else ""
    facts = [
        ("steps", _statuses(found)),
        ("succeeded", _rate(found.success_rate)),
        ("took", _text(_spread(found.average_duration_ms, found.p50_ms, found.p95_ms, found.p99_ms))),
        ("an attempt", _text(answers)),
        ("retries", _text(retries)),
        ("cached", _text(f"{found.cached:,}" if found.cached else "")),
        ("rolled back", _text(_undone(found.undoings))),
        ("failed of", _text(_counted(dict(_most(found.failures))), "red")),
    ]
    lines = {name: _line(one, one.average_duration_ms) for name, one in found.groups.items()}
    return _picture(found, facts, lines, width)


def _picture(
    found: ExecutionStatistics | TaskStatistics,
    facts: "Iterable[tuple[str, Text]]",
    lines: "Mapping[str, dict[str, Text]]",
    width: int,
) -> "RenderableType":
    from rich.console import Group

    from esexec.cli.terminal import columns

    window = " to ".join(f"{when:%Y-%m-%d %H:%M} UTC" if when else "now" for when in (found.since, found.until))
    created = _text((window if found.since else f"until {window.partition(' to ')[2]}") if found.since or found.until else "")
    rows = [(_text(name, _DIM), fact) for name, fact in (("created", created), *facts) if fact.plain]
    parts: list[RenderableType] = [columns(*rows)]
    if lines:
        parts += ["", _table(lines, width)]
    if found.left_out:
        parts.append(_text(f"and {found.left_out:,} others", _DIM))
    return Group(*parts)


def _table(lines: "Mapping[str, dict[str, Text]]", width: int) -> "RenderableType":
    """A line for each group. On a narrow terminal closer, and without some columns; names are folded, never figures."""
    from rich.table import Table

    from esexec.cli.terminal import WIDE_COLUMNS

    wide = width >= WIDE_COLUMNS
    heads = [head for head in next(iter(lines.values())) if wide or head not in _SPARED]
    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0), header_style=_DIM)
    table.add_column("", overflow="fold")
    for head in heads:
        table.add_column(head if wide else head.replace(" ", "\n"), justify="right", no_wrap=True)
    for name, line in lines.items():
        table.add_row(_text(name), *(line[head] for head in heads))
    return table


def _line(one: ExecutionTotals | TaskTotals, mean_ms: float | None) -> "dict[str, Text]":
    ended = {status: one.by_status[status] for status in _STYLES if status in one.by_status}
    took = {"mean": mean_ms, "p50": one.p50_ms, "p95": one.p95_ms, "p99": one.p99_ms}
    return {
        "total": _text(f"{one.total:,}"),
        **{status.replace("_", " "): _text(f"{count:,}", _STYLES[status] if count else "") for status, count in ended.items()},
        "success": _rate(one.success_rate),
        **{name: _text(_took(took_ms)) for name, took_ms in took.items()},
        "retries": _text(f"{one.retries:,}", "yellow" if one.retries else ""),
    }


def _statuses(one: ExecutionTotals | TaskTotals) -> "Text":
    from rich.text import Text

    from esexec.cli.progress import LOOKS

    looks = LOOKS | {"paused": ("‖", "yellow"), "rolled_back": ("↺", "yellow")}
    there = [(status, count) for status, count in one.by_status.items() if count]
    words = [_text(f"{count:,} {status.replace('_', ' ')}", looks[status][1]) for status, count in there]
    return Text.assemble(_text(f"{one.total:,}", "bold"), ": " if words else "", Text(", ").join(words))


def _rate(rate: float | None) -> "Text":
    if rate is None:
        return _text("")
    return _text(f"{100 * rate:.1f} %", "green" if rate >= _WELL else "yellow" if rate >= _HARDLY else "red")


def _spread(mean_ms: float | None, p50_ms: int | None, p95_ms: int | None, p99_ms: int | None) -> str:
    named = {"mean": mean_ms, "p50": p50_ms, "p95": p95_ms, "p99": p99_ms}
    return ", ".join(f"{name} {_took(took_ms)}" for name, took_ms in named.items() if took_ms is not None)


def _steps(found: ExecutionStatistics) -> str:
    if found.average_steps_per_execution is None:
        return ""
    retries = "retry" if found.retries == 1 else "retries"
    more = _counted({retries: found.retries, "run again": found.reruns})
    return f"{found.average_steps_per_execution:.1f} per execution" + (f"; {more}" if more else "")


def _undone(steps: Undoings) -> str:
    return _counted({"undone": steps.undone, "not undone": steps.failed, "left as they are": steps.skipped})


def _most(names: "Mapping[str, Any]") -> list[tuple[str, Any]]:
    return list(names.items())[:_FAILURES]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _took(took_ms: float | None) -> str:
    from projections.timeline import duration

    return "" if took_ms is None else duration(took_ms)


def _text(words: str, style: str = "") -> "Text":
    from esexec.cli.terminal import text

    return text(words, style)
