"""The read model of alerts: however the pages are cut, and wherever its process dies, it tells what judging alone tells."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from eventsourcing.persistence import Tracking
from hypothesis import given, settings
from hypothesis import strategies as st

from esexec.domain import events as e
from esexec.domain.alerts import Alert, AlertCondition
from esexec.domain.commit import Commit
from esexec.log import codec
from projections import alerts
from projections.alerts import ALERTS, COUNTS, OCCURRENCES, UNTOLD, AlertsProjection
from projections.sqlite import SqliteStore
from tests.alerting import Histories, created, execution_failed, line_of
from tests.projecting import Stage, apply, project
from tests.properties.test_alerting import logs, told_of


def stage_of(commits: list[Commit]) -> Stage:
    return Stage().add_all(codec.encode(commit) for commit in commits)


def yet_to_tell(projection: AlertsProjection) -> list[Alert]:
    return [msgspec.json.decode(row.data, type=Alert) for row in projection.view.select(UNTOLD, order=["number"])]


@settings(max_examples=100, deadline=None)
@given(logs(), st.data())
def test_it_tells_what_judging_alone_tells(commits: list[Commit], data: st.DataObject) -> None:
    """In the same order, with the same ids; and its list of alerts holds the last that was told of each."""
    places = st.lists(st.integers(1, len(commits)), max_size=4)
    projection = project(AlertsProjection, stage_of(commits), cuts=data.draw(places), crashes=data.draw(places))
    told = told_of(commits)
    assert yet_to_tell(projection) == told
    kept = {row.id: msgspec.json.decode(row.data, type=Alert) for row in projection.view.select(OCCURRENCES)}
    assert kept == {alert.id: alert for alert in told}


def test_what_ended_is_out_of_memory_and_can_go_on(tmp_path: Path) -> None:
    """Its counts come back from the database when it is run again, in the same process and in another."""
    histories = Histories()
    twice = AlertCondition("error_rate", "gte", 1, each_execution=True)
    commits = [histories.commit("_alerts", 0, e.AlertSet(alert_id="x", condition=twice))]
    for again in ([created(), e.ExecutionStarted()], [e.ExecutionRetried(run=2)], [e.ExecutionRetried(run=3)]):
        commits.append(histories.commit("e1", 1, *again))
        failed = e.TaskFailed(step="a", error=execution_failed().error)
        commits.append(histories.commit("e1", 2, failed, execution_failed()))
    stage, store = stage_of(commits), SqliteStore(tmp_path / "views.sqlite")

    async def told() -> list[str]:
        projection = AlertsProjection(store.view("alerts", AlertsProjection.tables))
        for number, recorded in enumerate(stage.recorded):
            await apply(projection, [recorded], stage)
            if number == 4:
                projection = AlertsProjection(store.view("alerts", AlertsProjection.tables))
        assert projection._evaluator is not None
        assert projection._evaluator.state.executions == {}
        (row,) = projection.view.select(COUNTS)
        assert msgspec.json.decode(row.data)["attempts_failed"] == 3
        return [line_of(alert) for alert in yet_to_tell(projection)]

    lines = asyncio.run(told())
    store.close()
    # From its second run on the rate stands as it was when that begins.
    assert lines == [
        "triggered x e1 at 2: 1", "resolved x e1 at 2: 1",
        "triggered x e1 at 2: 1", "resolved x e1 at 2: 1",
        "triggered x e1 at 2: 1", "resolved x e1 at 2: 1",
    ]  # fmt: skip


def test_what_time_brings_about_is_written_with_what_is_to_be_told(monkeypatch: Any) -> None:
    """A tick writes nothing while nothing comes of it; then the alert, its row and the clock, all or nothing."""
    histories = Histories()
    commits = [
        histories.commit("_alerts", 0, e.AlertSet(alert_id="x", condition=AlertCondition("execution_duration", "gte", 60_000))),
        histories.commit("e1", 0, created(), e.ExecutionStarted()),
    ]
    stage = stage_of(commits)
    projection = project(AlertsProjection, stage)
    view = projection.view
    for at_s, behind, expected in [(59, True, False), (90, False, False), (90, True, True), (91, True, False)]:
        monkeypatch.setattr(alerts, "now", lambda at_s=at_s: commits[0].time + at_s * alerts._BEHIND + alerts._BEHIND)
        written = projection.tick(caught_up=behind)
        assert written is expected
        if written:
            with view.amend(Tracking(view.name, stage.recorded[-1].last_id).notification_id):
                projection.finish()
    assert [line_of(alert) for alert in yet_to_tell(projection)] == ["triggered x e1 at 60: 60000"]
    assert AlertsProjection(view).tick(caught_up=True) is False
    assert view.count(ALERTS) == 1
