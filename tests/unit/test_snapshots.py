"""Snapshots of executions: every field of every state survives, and what is none is refused."""

from pathlib import Path

import pytest

from esexec.domain.commit import Commit
from esexec.domain.errors import CorruptHistory
from esexec.domain.evolve import fold
from esexec.eventsourcing.events import LogMapper, Recorded, project, stored_events
from esexec.eventsourcing.snapshots import Snapshot, state_of_bytes, state_to_bytes
from esexec.log import codec
from esexec.log.port import Stored
from tests.given import EXECUTION, visible

FILES = sorted((Path(__file__).parents[1] / "histories").glob("*.jsonl"))


def commits_in(file: Path) -> list[Commit]:
    return [codec.decode(data) for data in file.read_bytes().splitlines()]


def events_of(commits: list[Commit]) -> list[Recorded]:
    mapper = LogMapper()
    stored = [event for commit in commits for event in stored_events(commit, Stored(commit.n, commit.n, b""))]
    return [mapper.to_domain_event(event) for event in stored]  # type: ignore[misc]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_snapshot_at_any_version_leads_to_the_same_state(file: Path) -> None:
    """Of every golden history: the snapshot is the state at its version, and with the events behind it the state at the end."""
    commits = commits_in(file)
    events, whole = events_of(commits), fold(EXECUTION, commits)
    for version in range(1, len(events) + 1):
        before = project(None, events[:version])
        assert before is not None
        taken = Snapshot.of(Snapshot.take(before).stored)
        assert visible(taken.state) == visible(before)
        after = project(None, [taken, *events[version:]])
        assert after is not None
        assert visible(after) == visible(whole)


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"\xff", b'{"execution_id":"e1"}'])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    """Bytes that are no snapshot are no state either."""
    with pytest.raises(CorruptHistory):
        state_of_bytes(data)


def test_a_snapshot_is_not_changed_by_whoever_folds_on() -> None:
    """Each asking gives a state of its own."""
    commits = commits_in(FILES[0])
    taken = Snapshot.take(fold(EXECUTION, commits[:2]))
    fold(EXECUTION, commits[2:], taken.state)
    assert state_to_bytes(taken.state) == taken.written


def test_events_that_do_not_follow_are_refused() -> None:
    """A projector does not make a state that misses a version; of no events it makes none."""
    with pytest.raises(CorruptHistory):
        project(None, events_of(commits_in(FILES[0]))[1:])
    assert project(None, []) is None
