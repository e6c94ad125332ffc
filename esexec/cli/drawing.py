"""A plan as a picture: for the terminal, level by level; for a page, as a Mermaid flowchart. Work is proportional to the plan."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from esexec.domain.graph import Graph
from esexec.domain.plan import Step
from esexec.domain.settings import ExecutionConfig, TaskSettings

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_DIM: Final = "bright_black"
_TOLD: Final = 4
"""So many dependencies are named one by one."""


def levels(graph: Graph) -> list[list[int]]:
    """The steps by how many others must have completed one after the other before them; in plan order."""
    waiting = [len(before) for before in graph.dependencies]
    depth = [0] * len(waiting)
    free = [position for position, count in enumerate(waiting) if not count]
    while free:
        position = free.pop()
        for after in graph.dependents[position]:
            depth[after] = max(depth[after], depth[position] + 1)
            waiting[after] -= 1
            if not waiting[after]:
                free.append(after)
    found: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for position, level in enumerate(depth):
        found[level].append(position)
    return found


def settings_of(settings: TaskSettings | ExecutionConfig) -> str:
    """What is said of how it runs: `max_retries=3 timeout_ms=5000`."""
    known = (TaskSettings if isinstance(settings, Step) else type(settings)).__struct_fields__
    said = {name: getattr(settings, name) for name in (*known, "concurrency", "resources") if getattr(settings, name, None)}
    return " ".join(f"{name}={_value(value)}" for name, value in said.items())


def _value(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()


# For the terminal --------------------------------------------------------------------------------------------------------


def picture(graph: Graph) -> "Iterator[RenderableType]":
    """Each level with its steps; beside them what they run, wait for, and are undone by. ∥: may overlap with others."""
    from esexec.cli.terminal import columns, text

    plan, found = graph.plan, levels(graph)
    size = f"{len(plan.steps)} steps, {len(found)} levels" if len(plan.steps) != 1 else "1 step"
    yield text(plan.name, "bold").append_text(text(f"  {size}  {graph.plan_id[:12]}", _DIM))
    if plan.description:
        yield text(plan.description)
    if said := settings_of(plan.config):
        yield text(said, _DIM)
    yield ""
    yield columns(*(row for number, level in enumerate(found, 1) for row in _level(graph, number, level)))
    if any(graph.parallel):
        yield text("∥ may overlap with others; all else runs one at a time", _DIM)


def _level(graph: Graph, number: int, level: list[int]) -> "Iterator[tuple[Text, ...]]":
    from esexec.cli.terminal import text

    for place, position in enumerate(level):
        step, last = graph.steps[position], place == len(level) - 1
        gutter = "─" if len(level) == 1 else "┬" if place == 0 else "└" if last else "├"
        name = text(f"{'∥ ' if graph.parallel[position] else ''}{step.id}", "bold")
        lead = text(f"{number if place == 0 else '':>3} {gutter}", _DIM)
        yield lead, name, text(step.task if step.task != step.id else ""), text("; ".join(_beside(graph, position)), _DIM)


def _beside(graph: Graph, position: int) -> Iterator[str]:
    step = graph.steps[position]
    before = [graph.steps[other].id for other in graph.dependencies[position]]
    if before:
        yield f"after {', '.join(before[:_TOLD])}" + (f" and {len(before) - _TOLD} more" if len(before) > _TOLD else "")
    if condition := _condition(step):
        yield f"only if {condition}"
    if step.fallback:
        yield f"else {step.fallback}"
    if step.compensate:
        yield f"undone by {step.compensate}"
    if said := settings_of(step):
        yield said


def _condition(step: Step) -> str | None:
    """What must hold for it to run, where a plan can say so."""
    said = step.when
    return said


# For a page --------------------------------------------------------------------------------------------------------------


def mermaid(graph: Graph) -> str:
    """A flowchart: an arrow from each step to those that wait for it, dotted ones to what takes its place, and what undoes it."""
    lines = ["---", f"title: {_quoted(graph.plan.name)}", "---", "flowchart TD"]
    for position, step in enumerate(graph.steps):
        label = step.id if step.task == step.id else f"{step.id}<br/>{step.task}"
        if condition := _condition(step):
            label += f"<br/>if {condition}"
        shape = ("([{}])" if graph.parallel[position] else "[{}]").format(_quoted(label))
        lines.append(f"    s{position}{shape}")
    for position, before in enumerate(graph.dependencies):
        lines += [f"    s{other} --> s{position}" for other in before]
    for position, step in enumerate(graph.steps):
        if step.fallback:
            lines += [f"    f{position}[{_quoted(step.fallback)}]", f"    s{position} -. else .-> f{position}"]
        if step.compensate:
            lines += [f"    c{position}[{_quoted(step.compensate)}]", f"    s{position} -. undone by .-> c{position}"]
    return "\n".join(lines)


def _quoted(label: str) -> str:
    """As Mermaid takes any text: quotes as their entity, `<br/>` as it is."""
    parts = label.split("<br/>")
    escaped = (part.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;") for part in parts)
    return f'"{"<br/>".join(escaped)}"'
