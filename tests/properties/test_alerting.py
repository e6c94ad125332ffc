"""Alerts over random histories: as judged by hand, the same however it is cut and looked at, each over before the next begins."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from math import ceil, floor
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from esexec.domain import events as e
from esexec.domain.alerts import Alert, AlertCondition
from esexec.domain.commit import Commit
from projections.alerting import Evaluator
from tests.alerting import Histories, completed, created, execution_failed, failed, stored
from tests.given import at

_MS = timedelta(milliseconds=1)
_EXECUTIONS = {"e1": "p", "e2": "p", "e3": "q", "e9": "z"}
_gaps = st.sampled_from([0, 0, 1, 499, 1_000, 5_000, 30_000])
_scopes = st.sampled_from([{}, {"execution_id": "e1"}, {"plan": "p"}, {"plan": "id-of-q"}])


@st.composite
def conditions(draw: st.DrawFn) -> AlertCondition:
    """Of everything that is judged by events and the clock."""
    scope = draw(_scopes)
    metric = draw(
        st.sampled_from(["execution_duration", "error_rate", "success_rate", "retries", "cost", "quality_score", "rows"])
    )
    threshold = draw(
        st.sampled_from([0, 0.5, 1, 2] if metric != "execution_duration" else [-1, 0, 1, 999.5, 1_000, 6_000, 31_000])
    )
    operator = draw(st.sampled_from(["gt", "gte", "lt", "lte", "eq"]))
    each = draw(st.booleans())
    windowed = not each and metric != "execution_duration" and "execution_id" not in scope
    return AlertCondition(
        metric,
        operator,
        threshold,
        draw(st.sampled_from([0, 0, 1, 1_000, 10_000])),
        each_execution=each,
        window_ms=draw(st.sampled_from([6_000, 60_000])) if windowed else None,
        **scope,
    )


_OF_AN_EXECUTION: dict[str, list[list[e.Event]]] = {
    "new": [[created("p")], [created("p"), e.ExecutionStarted()]],
    "running": [
        [completed(cost=1.0, rows=1)],
        [completed("b", quality=0.5, rows=2), failed(will_retry=True)],
        [failed()],
        [failed(will_retry=True), e.TaskRetryScheduled(step="a", attempt=2, delay_ms=1, due=at(0))],
        [e.ExecutionCompleted()],
        [failed(), execution_failed()],
        [completed(), e.ExecutionCompleted()],
        [e.ExecutionCancelled()],
    ],
    "ended": [[e.ExecutionRetried(run=2)], [e.RollbackStarted(by="command")]],
}
_ENDS = (e.ExecutionCompleted, e.ExecutionFailed, e.ExecutionCancelled, e.ExecutionRolledBack)


@st.composite
def logs(draw: st.DrawFn) -> list[Commit]:
    """Commits of three executions and of `_alerts`, in the order in which they were stored."""
    histories, now_ms, commits = Histories(), 0, list[Commit]()
    stages = dict.fromkeys(_EXECUTIONS, "new")
    for alert_id in ("x", "y"):
        commits.append(histories.commit("_alerts", 0, e.AlertSet(alert_id=alert_id, condition=draw(conditions()))))
    for _ in range(draw(st.integers(1, 14))):
        now_ms += draw(_gaps)
        entity = draw(st.sampled_from(["e1", "e1", "e2", "e3", "_alerts"]))
        if entity == "_alerts":
            alert_id = draw(st.sampled_from("xyz"))
            removed, set_ = e.AlertRemoved(alert_id=alert_id), e.AlertSet(alert_id=alert_id, condition=draw(conditions()))
            events: list[e.Event] = [draw(st.sampled_from([removed, set_, set_]))]
        else:
            events = draw(st.sampled_from(_OF_AN_EXECUTION[stages[entity]]))
            if stages[entity] == "new":
                events = [created(_EXECUTIONS[entity]), *events[1:]]
                stages[entity] = "running" if len(events) > 1 else "created"
                _OF_AN_EXECUTION.setdefault("created", [[e.ExecutionStarted()]])
            else:
                stages[entity] = "ended" if isinstance(events[-1], _ENDS) else "running"
        commits.append(histories.commit(entity, now_ms / 1_000, *events))
    commits.append(histories.commit("e9", now_ms / 1_000 + draw(st.sampled_from([0, 1, 20, 500])), created("z")))
    return commits


def told_of(commits: list[Commit], evaluator: Evaluator | None = None) -> list[Alert]:
    evaluator = evaluator or Evaluator()
    return [alert for commit in commits for alert in evaluator.commit(commit)]


# The same, however it is looked at -----------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(logs(), st.data())
def test_a_restart_anywhere_changes_nothing(commits: list[Commit], data: st.DataObject) -> None:
    """What is told before and after it is, together, what is told without."""
    cuts = data.draw(st.lists(st.integers(0, len(commits)), max_size=3).map(sorted))
    evaluator, told = Evaluator(), list[Alert]()
    for begin, end in zip([0, *cuts], [*cuts, len(commits)], strict=True):
        evaluator = Evaluator(stored(evaluator.state))
        told += told_of(commits[begin:end], evaluator)
    assert told == told_of(commits)


@settings(max_examples=300, deadline=None)
@given(logs(), st.data())
def test_it_does_not_matter_when_somebody_looks(commits: list[Commit], data: st.DataObject) -> None:
    """Ticks between the commits tell the same, earlier; those who look late are told the same."""
    evaluator, told = Evaluator(), list[Alert]()
    for before, commit in zip([None, *commits], commits, strict=False):
        if before is not None:
            span_ms = (commit.time - before.time) // _MS
            for offset in sorted(data.draw(st.lists(st.integers(0, span_ms), max_size=3))):
                told += evaluator.tick(before.time + offset * _MS)
        told += evaluator.commit(commit)
    assert told == told_of(commits)


@settings(max_examples=300, deadline=None)
@given(logs())
def test_an_alert_is_over_before_the_next_begins(commits: list[Commit]) -> None:
    """Triggered and resolved take turns; no two occurrences have one id; an end that is told has an alert that was."""
    open_: dict[tuple[str, str | None], Alert] = {}
    seen: set[str] = set()
    for alert in told_of(commits):
        about = (alert.alert_id, alert.execution_id)
        if alert.state == "triggered":
            assert about not in open_ and alert.id not in seen and alert.resolved_at is None
            seen.add(alert.id)
            open_[about] = alert
        else:
            before = open_.pop(about)
            assert (before.id, before.triggered_at) == (alert.id, alert.triggered_at)
            assert alert.resolved_at is not None and alert.resolved_at >= alert.triggered_at
        assert alert.message and alert.message.isprintable()


# As judged by hand ---------------------------------------------------------------------------------------------------------


class Look(NamedTuple):
    """At `time` these commits of the log are known; `end`: of this execution, which ends with the last of them."""

    time: datetime
    known: int
    end: str | None = None


@settings(max_examples=300, deadline=None)
@given(logs())
def test_alerts_are_what_one_finds_by_hand(commits: list[Commit]) -> None:
    """Somebody who looks at every instant that could matter, and works out everything anew, finds the same."""
    found = sorted(_by_hand(commits), key=str)
    told = told_of(commits)
    assert (
        sorted(((a.alert_id, a.execution_id, a.triggered_at, _over(told, a)) for a in told if a.state == "triggered"), key=str)
        == found
    )


def _over(told: list[Alert], alert: Alert) -> datetime | None:
    return next((one.resolved_at for one in told if one.id == alert.id and one.state == "resolved"), None)


def _by_hand(commits: list[Commit]) -> Iterator[tuple[str, str | None, datetime, datetime | None]]:
    for index, commit in enumerate(commits):
        for event in commit.events:
            if isinstance(event, e.AlertSet):
                over = next((at for at in range(index + 1, len(commits)) if _about(commits[at], event.alert_id)), len(commits))
                abouts = _EXECUTIONS if event.condition.of_each else [event.condition.execution_id]
                for about in abouts:
                    if about is None or _covers(event.condition, about):
                        for since, until in _held(commits, index, over, event.condition, about):
                            yield event.alert_id, about, since, until


def _about(commit: Commit, alert_id: str) -> bool:
    return any(getattr(event, "alert_id", None) == alert_id for event in commit.events)


def _covers(condition: AlertCondition, execution: str) -> bool:
    plan = _EXECUTIONS.get(execution)
    return condition.execution_id in (None, execution) and condition.plan in (None, plan, f"id-of-{plan}")


def _held(
    commits: list[Commit], begin: int, over: int, condition: AlertCondition, about: str | None
) -> list[tuple[datetime, datetime | None]]:
    """When the condition of an alert, which is set by one commit until another, was told, and when that was over."""
    since, triggered, held = None, None, list[tuple[datetime, datetime | None]]()
    for look in _looks(commits, begin, over, condition, about):
        known = commits[: look.known]
        over_ = look.end is None and about is not None and _ended(known, about)
        value = None if over_ else _value(known, begin, condition, about, look.time)
        if not condition.holds(value):
            if triggered is not None:
                held.append((triggered, look.time))
            since = triggered = None
        else:
            since = since or look.time
            if triggered is None and look.time >= since + condition.duration_ms * _MS:
                triggered = since + condition.duration_ms * _MS
        if look.end == about and about is not None:
            if triggered is not None:
                held.append((triggered, max(look.time, triggered)))
            since = triggered = None
    if triggered is not None:
        held.append((triggered, max(commits[over].time, triggered) if over < len(commits) else None))
    return held


def _looks(commits: list[Commit], begin: int, over: int, condition: AlertCondition, about: str | None) -> Iterator[Look]:
    """Every instant at which something could change, with what was known then."""
    instants = {commit.time for commit in commits}
    for commit in commits:
        for number in (floor(condition.threshold), floor(condition.threshold) + 1, ceil(condition.threshold)):
            instants.add(commit.time + number * _MS)
        if condition.window_ms is not None:
            part_ms = condition.window_ms // 60
            first = commit.time - (commit.time - at(0)) % (part_ms * _MS)
            instants.add(first + condition.window_ms * _MS)
    instants |= {instant + condition.duration_ms * _MS for instant in instants}
    for index in range(begin, over):
        mine = commits[index].execution_id == about
        yield Look(commits[index].time, index + 1, about if mine and _ends(commits[index]) else None)
        if index + 1 < len(commits):
            until = commits[index + 1].time
            for instant in sorted(instant for instant in instants if commits[index].time <= instant <= until):
                yield Look(instant, index + 1)


def _ends(commit: Commit) -> bool:
    return any(isinstance(event, _ENDS) for event in commit.events)


def _value(known: list[Commit], begin: int, condition: AlertCondition, about: str | None, now: datetime) -> float | None:
    """The metric, from all that is known."""
    happened = [
        (commit.time, event, commit.execution_id)
        for number, commit in enumerate(known)
        for event in commit.events
        if (commit.execution_id == about if about else _covers(condition, commit.execution_id) and number > begin)
    ]
    if about is not None:
        if not happened:
            return None
        if condition.metric == "rows":
            happened = [one for one in happened if _reported_since(known, begin, one[1])]
        return _of_one(condition.metric, happened, now)
    assert condition.window_ms is not None
    part = condition.window_ms // 60 * _MS
    within = [event for time, event, _ in happened if (now - at(0)) // part - (time - at(0)) // part < 60]
    return _of_many(condition.metric, within)


def _ended(known: list[Commit], execution: str) -> bool:
    mine = [commit for commit in known if commit.execution_id == execution]
    return bool(mine) and _ends(mine[-1])


def _reported_since(known: list[Commit], begin: int, event: e.Event) -> bool:
    return any(event is one for commit in known[begin:] for one in commit.events)


def _of_one(metric: str, happened: list[Any], now: datetime) -> float | None:
    events = [event for _, event, _ in happened]
    if metric == "execution_duration":
        begun = [
            time for time, event, _ in happened if isinstance(event, e.ExecutionStarted | e.ExecutionRetried | e.RollbackStarted)
        ]
        return (now - begun[-1]) // _MS if begun else None
    if metric == "success_rate":
        good = sum(isinstance(event, e.TaskCompleted) for event in events)
        bad = sum(isinstance(event, e.TaskFailed) and not event.will_retry for event in events)
        return good / (good + bad) if good + bad else None
    if metric == "rows":
        reported = [one for event in events for one in _rows(event)]
        return reported[-1] if reported else None
    return _of_many(metric, events)


def _of_many(metric: str, events: list[e.Event]) -> float | None:
    match metric:
        case "error_rate":
            found = [
                float(isinstance(event, e.TaskFailed)) for event in events if isinstance(event, e.TaskFailed | e.TaskCompleted)
            ]
        case "success_rate":
            found = [float(isinstance(event, e.ExecutionCompleted)) for event in events if isinstance(event, _ENDS)]
        case "retries":
            return sum(isinstance(event, e.TaskRetryScheduled) for event in events)
        case "cost":
            return sum(event.measured.cost for event in events if isinstance(event, e.TaskCompleted) and event.measured)
        case "quality_score":
            said = [event.measured.quality for event in events if isinstance(event, e.TaskCompleted) and event.measured]
            found = [one for one in said if one is not None]
        case _:
            found = [one for event in events for one in _rows(event)]
    return sum(found) / len(found) if found else None


def _rows(event: e.Event) -> list[float]:
    measured = getattr(event, "measured", None)
    return [float(metric.values["value"]) for metric in measured.metrics if metric.name == "rows"] if measured else []
