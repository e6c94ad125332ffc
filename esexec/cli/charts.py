"""How an execution went, for people's eyes: its numbers, and where its time went as a chart."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from esexec.cli.progress import LOOKS
from esexec.cli.terminal import columns, text
from esexec.domain.flow import ResourceUsage
from esexec.results import ExecutionResult
from esexec.views import Bar, ExecutionMetrics, Gantt, Span, SpanKind, TimelineEntry
from projections.timeline import duration

_DIM: Final = "bright_black"
_CELLS: Final = 60
_CELLS_MIN: Final = 10
_LABEL_CHARS: Final = 40
_BETWEEN: Final = 9
"""Columns of a row that are neither its name nor its line nor its words: the sign, and the gaps."""

_PAINT: Final[dict[SpanKind, tuple[str, str, str]]] = {
    "back_off": ("·", "yellow", "waits for its retry"),
    "held": ("=", "yellow", "held by a pause"),
    "waiting": ("▒", "magenta", "waits for a rate limit, a key or resources"),
    "queued": ("░", "cyan", "waits for a worker"),
    "running": ("█", "green", "runs"),
}
"""Sign, style and meaning of what time is spent with; where two share a cell, the later stands."""
_BAD: Final = ("failed", "timed_out")


def analysis(result: ExecutionResult) -> RenderableType:
    """The numbers of a result that was asked for in full, what it used, and its timeline with the times."""
    assert result.metrics is not None
    parts: list[RenderableType] = [columns(*_numbers(result, result.metrics))]
    if result.resource_usage:
        parts += ["", text("resources", "bold"), columns(*map(_used, result.resource_usage))]
    parts += ["", text("timeline", "bold"), columns(*map(_happened, result.timeline or ()))]
    return Group(*parts)


def _numbers(result: ExecutionResult, of: ExecutionMetrics) -> Iterable[tuple[Text, ...]]:
    facts = {
        "execution": result.execution_id,
        "plan": f"{result.name} ({result.plan_id[:12]})",
        "status": str(result.status).replace("_", " "),
        "duration": duration(of.total_duration_ms),
        "efficiency": f"{_percent(of.efficiency)} (handlers ran for {duration(of.effective_duration_ms)})",
        "cost": f"${of.total_cost:,.4g}" if of.total_cost < 1 else f"${of.total_cost:,.2f}",
        "quality": _percent(of.quality_score),
        "throughput": "–" if of.throughput is None else f"{of.throughput:.3g} tasks/s",
        "errors": f"{_percent(of.error_rate)} ({of.failed_attempts} of {of.attempts} attempts)",
        "success": f"{_percent(of.success_rate)} ({result.completed_steps} of {result.total_steps} steps completed)",
        "resource use": _percent(of.resource_efficiency),
    }
    return [(text(name, _DIM), text(fact)) for name, fact in facts.items()]


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.3g} %"


def _used(usage: ResourceUsage) -> tuple[Text, ...]:
    until = "still held" if usage.end_time is None else duration((usage.end_time - usage.start_time).total_seconds() * 1000)
    return (
        text(usage.resource_type),
        text(f"{usage.amount_used:g}"),
        text(until),
        text(f"${usage.cost:,.4g}"),
        text(f"used {_percent(usage.efficiency)}"),
    )


def _happened(entry: TimelineEntry) -> tuple[Text, ...]:
    return text(iso(entry.time), _DIM), text(entry.description)


def iso(time: datetime) -> str:
    """`2026-11-20T13:37:56.470Z`."""
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"


# The chart -----------------------------------------------------------------------------------------------------------------


def chart(found: Gantt, width: int) -> RenderableType:
    """A row for each attempt, within so many columns."""
    total = duration((found.end - found.start).total_seconds() * 1000)
    heads = ["execution", *map(_label, found.bars)]
    took = [text(total, _DIM), *(_ran(bar, found) for bar in found.bars)]
    around = max(map(len, heads)) + max(map(len, took)) + _BETWEEN
    cells = max(_CELLS_MIN, min(_CELLS, width - around))
    rows = [(text(""), text(heads[0], "bold"), _drawn(found.execution, found, cells), took[0])]
    for bar, head, words in zip(found.bars, heads[1:], took[1:], strict=True):
        sign, style = LOOKS[_look(bar)]
        drawn = _drawn(bar.spans, found, cells, bad=bar.outcome in _BAD)
        rows.append((text(sign, style), text(head), drawn, words))
    used = {span.kind for bar in found.bars for span in bar.spans} | {span.kind for span in found.execution}
    legend = "   ".join(f"{sign} {words}" for kind, (sign, _, words) in _PAINT.items() if kind in used)
    return Group(columns(*rows, wrap_last=False), "", text(legend, _DIM))


def _label(bar: Bar) -> str:
    more = {"task": "", "fallback": " (fallback)", "compensation": " (undoing)", "recovery": " (recovery)"}[bar.purpose]
    tries = f" #{bar.attempt}" if bar.attempt > 1 else ""
    run = f", run {bar.run}" if bar.run > 1 else ""
    label = f"{bar.step}{tries}{more}{run}"
    return label if len(label) <= _LABEL_CHARS else label[: _LABEL_CHARS - 1] + "…"


def _look(bar: Bar) -> str:
    if bar.outcome is None:
        return bar.spans[-1].kind if bar.spans and bar.spans[-1].kind in ("running", "queued") else "retrying"
    return {"cached": "completed", "timed_out": "failed", "abandoned": "cancelled"}.get(bar.outcome, bar.outcome)


def _ran(bar: Bar, found: Gantt) -> Text:
    ran = [((span.end or found.end) - span.start).total_seconds() * 1000 for span in bar.spans if span.kind == "running"]
    words = {"cached": "from the cache", "timed_out": "timed out", "cancelled": "cancelled", "abandoned": "abandoned"}
    return text(" ".join([*map(duration, ran), words.get(bar.outcome or "", "")]).strip(), _DIM)


def _drawn(spans: Iterable[Span], found: Gantt, cells: int, *, bad: bool = False) -> Text:
    total_s = max((found.end - found.start).total_seconds(), 0.001)
    line: list[SpanKind | None] = [None] * cells
    for span in sorted(spans, key=lambda span: [*_PAINT].index(span.kind)):
        first = int((span.start - found.start).total_seconds() / total_s * cells)
        last = ((span.end or found.end) - found.start).total_seconds() / total_s * cells
        for cell in range(min(first, cells - 1), min(max(first + 1, round(last)), cells)):
            line[cell] = span.kind
    drawn = Text(no_wrap=True)
    for kind in line:
        sign, style, _ = _PAINT[kind] if kind is not None else (" ", "", "")
        drawn.append(sign, "red" if bad and kind == "running" else style)
    return drawn
