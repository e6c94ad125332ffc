"""The alerts that are set in a namespace: what is refused, what is no news, and how people write conditions."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from esexec.domain import commands as c
from esexec.domain import events as e
from esexec.domain import limits
from esexec.domain.alert_reading import read_condition
from esexec.domain.alerts import METRICS, AlertCondition, condition_problem
from esexec.domain.commit import Cause, Commit
from esexec.domain.errors import CorruptHistory, ErrorInfo, ValidationError
from esexec.domain.kept_alerts import ALERTS_ENTITY, AlertsState, decide_alerts, fold_alerts
from tests.given import T0, at

HOT = AlertCondition("cpu_usage", "gt", 90, 30_000)
LONG = AlertCondition("execution_duration", "gt", 7_200_000)


def after(*commands: c.AlertsCommand) -> AlertsState:
    """The state after these commands, one commit each."""
    state = AlertsState()
    for command in commands:
        events = decide_alerts(state, command)
        assert not isinstance(events, ErrorInfo)
        if events:
            fold_alerts([committed(state, command.id, *events)], state)
    return state


def committed(state: AlertsState, cause: str, *events: e.Event) -> Commit:
    return Commit(
        v=1,
        execution_id=ALERTS_ENTITY,
        n=state.n + 1,
        version=state.version + 1,
        time=T0 + timedelta(seconds=state.n),
        commands=(Cause(cause, T0),),
        events=events,
    )


def set_(
    alert_id: str | None = "hot", condition: AlertCondition = HOT, *, id: str = "c1", webhook: str | None = None
) -> c.SetAlert:
    return c.SetAlert(id=id, alert_id=alert_id, condition=condition, webhook=webhook)


def refusal(state: AlertsState, command: c.AlertsCommand) -> ErrorInfo:
    decided = decide_alerts(state, command)
    assert isinstance(decided, ErrorInfo)
    return decided


def test_an_alert_is_set_replaced_and_removed() -> None:
    """Under one id there is one condition, the last; the order is that in which they were set first."""
    state = after(set_(), set_("long", LONG, id="c2"), set_("hot", LONG, id="c3", webhook="https://h/x"))
    assert [(one.alert_id, one.condition, one.webhook, one.set_at) for one in state.alerts.values()] == [
        ("hot", LONG, "https://h/x", at(2)),
        ("long", LONG, None, at(1)),
    ]
    assert decide_alerts(state, c.RemoveAlert(id="c4", alert_id="long")) == [e.AlertRemoved(alert_id="long")]
    assert [*after(set_(), c.RemoveAlert(id="c2", alert_id="hot")).alerts] == []


def test_without_an_id_it_is_called_as_its_command() -> None:
    """Whoever sends the command again sets the same alert again, not another."""
    assert [*after(set_(None, id="c9")).alerts] == ["c9"]


def test_what_changes_nothing_is_no_event() -> None:
    """The same condition and webhook again, the same command again, an alert that is not there: nothing to record."""
    state = after(set_(webhook="http://h"))
    assert decide_alerts(state, set_(webhook="http://h", id="c2")) == []
    assert decide_alerts(state, set_(condition=LONG)) == []  # the command is known, whatever it says now
    assert decide_alerts(state, c.RemoveAlert(id="c2", alert_id="cold")) == []
    assert decide_alerts(state, set_(id="c2")) == [e.AlertSet(alert_id="hot", condition=HOT)]


@pytest.mark.parametrize("alert_id", ["", "_hot", "a.b", "a b", "*", "ü", "x" * 65])
def test_an_id_can_stand_in_a_subject(alert_id: str) -> None:
    """A hostile id would widen the subject that alerts are told on: it is refused, set or removed, given or the command's."""
    for command in (set_(alert_id), set_(None, id=alert_id), c.RemoveAlert(id="c2", alert_id=alert_id)):
        assert refusal(AlertsState(), command).code == "bad_alert_id"


@pytest.mark.parametrize(
    "condition",
    [
        AlertCondition("cost", "gt", float("nan")),
        AlertCondition("cost", "gt", float("inf")),
        AlertCondition("cost", "gt", 1, execution_id="e1", plan="p"),
        AlertCondition("cost", "gt", 1, execution_id="a.b"),
        AlertCondition("cost", "gt", 1, source="w1"),
        AlertCondition("cost", "gt", 1, execution_id="e1", window_ms=60_000),
        AlertCondition("cost", "gt", 1, each_execution=True, window_ms=60_000),
        AlertCondition("execution_duration", "gt", 1, window_ms=60_000),
        AlertCondition("queue_depth", "gt", 1, plan="p"),
        AlertCondition("lag", "gt", 1, execution_id="e1"),
        AlertCondition("cpu_usage", "gt", 1, each_execution=True),
        AlertCondition("cpu_usage", "gt", 1, window_ms=60_000),
        AlertCondition("execution_failed", "gte", 1, 1_000),
        AlertCondition("execution_failed", "gt", 1),
        AlertCondition("a\nb", "gt", 1),
        AlertCondition(" cost", "gt", 1),
    ],
    ids=str,
)
def test_what_would_never_be_judged_is_refused(condition: AlertCondition) -> None:
    """A condition that contradicts itself, or that nothing could ever fulfil, is said to be so when it is set."""
    found = refusal(AlertsState(), set_(condition=condition))
    assert (found.type, found.code) == ("validation_error", "bad_alert")
    assert found.hint
    with pytest.raises(ValidationError):
        read_condition(condition)


@pytest.mark.parametrize("metric", [*METRICS, "rows", "rows.bad", "größe"])
def test_every_metric_can_be_watched(metric: str) -> None:
    """Those that esexec knows, and any name that a handler may give."""
    assert condition_problem(AlertCondition(metric, "gte", 1)) is None


@pytest.mark.parametrize(
    "url",
    ["", "h", "ftp://h/", "file:///etc/passwd", "javascript:alert(1)", "http://", "https://:80", "http://h:0/", "http://h:99999/",
     "http://h/a b", "http://h/\n", "http://ü/", "http://[::1", "http://h/" + "x" * limits.webhook_chars],
)  # fmt: skip
def test_a_webhook_is_a_url_of_http(url: str) -> None:
    """Anything else is refused when it is set, not when something is to be posted."""
    assert refusal(AlertsState(), set_(webhook=url)).code == "bad_webhook"
    assert not isinstance(decide_alerts(AlertsState(), set_(webhook="http://[::1]:8080/x?y=1")), ErrorInfo)


def test_a_namespace_has_so_many_alerts() -> None:
    """`limits.alerts`; replacing one is possible even then."""
    state = after(*(set_(f"a{number}", id=f"c{number}") for number in range(limits.alerts)))
    assert refusal(state, set_("more", id="d")).code == "too_many_alerts"
    assert decide_alerts(state, set_("a0", LONG, id="d")) == [e.AlertSet(alert_id="a0", condition=LONG)]


def test_a_fold_notices_a_gap() -> None:
    """A commit that is missing is never skipped in silence."""
    late = committed(AlertsState(n=1), "c1", e.AlertRemoved(alert_id="a"))
    with pytest.raises(CorruptHistory):
        fold_alerts([late])


# How people write them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"metric": "cpu_usage", "operator": "gt", "threshold": 90, "duration": "30s"}, HOT),
        ({"metric": "cpu_usage", "operator": ">", "threshold": 90, "durationMs": 30_000}, HOT),
        ({"metric": "execution_duration", "operator": ">", "threshold": "2h"}, LONG),
        ({"metric": "execution_duration", "operator": "gt", "threshold": 7_200_000}, LONG),
        ({"metric": "cost", "operator": ">=", "threshold": 1, "planId": "p"}, AlertCondition("cost", "gte", 1, plan="p")),
        (
            {"metric": "queue_depth", "operator": "<", "threshold": 1, "queue": "q"},
            AlertCondition("queue_depth", "lt", 1, source="q"),
        ),
        ({"metric": "cost", "operator": "==", "threshold": 1, "window": "1m"}, AlertCondition("cost", "eq", 1, window_ms=60_000)),
    ],
    ids=lambda one: str(one)[:60],
)
def test_a_condition_can_be_written_in_many_ways(said: dict[str, Any], meant: AlertCondition) -> None:
    """With units, symbols and other names; what is sent has one form."""
    assert read_condition(said) == meant
    assert read_condition(meant) == meant


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, "missing"),
        ({"metric": "cost", "operator": "gt"}, "missing"),
        ([], "invalid_value"),
        ({"metric": "cost", "operator": "~", "threshold": 1}, "invalid_value"),
        ({"metric": "cost", "operator": ["gt"], "threshold": 1}, "invalid_value"),
        ({"metric": ["cost"], "operator": "gt", "threshold": "2h"}, "invalid_value"),
        ({"metric": "cost", "operator": "gt", "threshold": "much"}, "invalid_value"),
        ({"metric": "execution_duration", "operator": "gt", "threshold": "much"}, "invalid_duration"),
        ({"metric": "cost", "operator": "gt", "threshold": 1, "limit": 2}, "unknown_key"),
        ({"metric": "cost", "operator": "gt", "threshold": 1, "plan": "p", "planId": "p"}, "said_twice"),
        ({"metric": "cost", "operator": "gt", "threshold": 1, "duration": 30_000}, "ambiguous_duration"),
        ({"metric": "cost", "operator": "gt", "threshold": 1, "window": "1ms"}, "invalid_value"),
    ],
)
def test_what_is_no_condition_is_refused(said: Any, code: str) -> None:
    """By name, and with the place."""
    with pytest.raises(ValidationError) as raised:
        read_condition(said)
    assert raised.value.code == code


def test_the_largest_alert_fits_into_a_commit() -> None:
    """Whatever passed the bounds of a command can be stored."""
    wide = "\U0001f600"
    condition = AlertCondition(wide * 2 * limits.metric_name_chars, "gt", -1e308, plan=wide * limits.name_chars)
    command = set_("x" * limits.id_chars, condition, webhook="http://h/".ljust(limits.webhook_chars, "x"))
    assert msgspec.json.decode(msgspec.json.encode(command), type=c.SetAlert) == command
    (event,) = decide_alerts(AlertsState(), command)  # type: ignore[misc]
    assert len(msgspec.json.encode(event)) < 16 * 1024
