"""Alerts in tables for people's eyes."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.text import Text

from esexec.cli.terminal import columns, text
from esexec.domain.alerts import Alert
from esexec.domain.kept_alerts import KeptAlert
from projections.asks import AlertsPage
from projections.timeline import duration

if TYPE_CHECKING:
    from esexec.cli.alerts import Shown

_DIM = "bright_black"


def of_set(found: "Shown", width: int) -> RenderableType:
    """What is set, what is open of it, and below that each that is open."""
    if not found.alerts:
        return text("no alerts")
    rows = []
    for kept in found.alerts:
        opened = None if found.open is None else [one for one in found.open if one.alert_id == kept.alert_id]
        rows.append((text(kept.alert_id), _state(opened), text(_words(kept)), text(_place(kept.webhook), _DIM)))
    told = [(_when(alert), text(alert.alert_id), text(alert.message, "red")) for alert in reversed(found.open or ())]
    parts: list[RenderableType] = [columns(*rows)]
    if told:
        parts += ["", columns(*told)]
    return Group(*parts)


def _place(webhook: str | None) -> str:
    """The host alone: the rest of a webhook's URL is often its secret."""
    return f"to {urlsplit(webhook).hostname}" if webhook else ""


def _state(opened: list[Alert] | None) -> Text:
    if opened is None:
        return text("?", _DIM)
    return text(f"{len(opened)} open", "bold red") if opened else text("quiet", "green")


def _words(kept: KeptAlert) -> str:
    condition = kept.condition
    held = f" for {duration(condition.duration_ms)}" if condition.duration_ms else ""
    limit = str(condition)
    if condition.metric == "execution_duration":
        limit = f"{limit.rsplit(' ', 1)[0]} {duration(condition.threshold)}"
    whose = ""
    if condition.execution_id is not None:
        whose = f", execution {condition.execution_id}"
    elif condition.plan is not None:
        whose = f", plan {condition.plan}"
    source = f", {condition.source}" if condition.source is not None else ""
    each = ", each execution" if condition.each_execution else ""
    window = f", over {duration(condition.window_ms)}" if condition.window_ms is not None else ""
    return f"{limit}{held}{whose}{source}{each}{window}"


def of_told(page: AlertsPage, width: int) -> RenderableType:
    """What was told, line by line."""
    if not page.items:
        return text("no alerts")
    rows = []
    for alert in page.items:
        over = alert.resolved_at
        took = "open" if over is None else f"over after {duration((over - alert.triggered_at).total_seconds() * 1000)}"
        style = "red" if over is None else ""
        rows.append((_when(alert), text(alert.alert_id), text(took, style or _DIM), text(alert.message, style)))
    more = [text(f"more with --cursor {page.cursor}", _DIM)] if page.cursor else []
    return Group(columns(*rows), *more)


def _when(alert: Alert) -> Text:
    return text(f"{alert.triggered_at:%Y-%m-%d %H:%M:%S}", _DIM)
