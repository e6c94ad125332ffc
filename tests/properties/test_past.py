"""What holds of every history when one looks back: at any version, through a snapshot, through the library's eyes, in a file."""

from itertools import pairwise
from random import Random

from eventsourcing.persistence import StoredEvent
from hypothesis import given
from hypothesis import strategies as st

from esexec.domain.commit import Commit
from esexec.domain.evolve import begin, evolve, fold
from esexec.domain.past import as_of
from esexec.domain.state import ExecutionState
from esexec.eventsourcing.events import LogMapper, Recorded, project, stored_events
from esexec.eventsourcing.snapshots import Snapshot, state_of_bytes, state_to_bytes
from esexec.log.lines import histories_in, line_of
from esexec.log.port import Stored
from esexec.results import result_of
from projections.difference import difference
from tests.given import EXECUTION, History, visible
from tests.properties.test_lifecycle import World, lived, lived_in_gulps, many, orders, worlds


def event_by_event(commits: list[Commit]) -> list[ExecutionState]:
    """The state after each version, written independently: one fold from the beginning for each."""
    states = []
    events = [(commit, event) for commit in commits for event in commit.events]
    for count in range(1, len(events) + 1):
        state = ExecutionState(EXECUTION)
        for commit, event in events[:count]:
            if commit.n != state.n:
                begin(state, commit.n, commit.time)
            evolve(state, event)
        states.append(state)
    return states


def shown(state: ExecutionState) -> dict[str, object]:
    """What a history determines of a state but for its commands, which a commit tells when it is whole."""
    return {name: value for name, value in visible(state).items() if name not in ("applied", "last_control", "weight")}


def through_the_library(history: History) -> list[Recorded]:
    """The events as the library's application would give them to a projection."""
    events: list[StoredEvent] = []
    for commit, stored in zip(history.commits, history.stored, strict=True):
        events += stored_events(commit, stored)
    return [LogMapper().to_domain_event(event) for event in events]  # type: ignore[misc]


@many
@given(orders, worlds())
def test_a_state_at_a_version_is_the_fold_up_to_there(order: Random, world: World) -> None:
    """Whichever version one asks for, also in the middle of a commit, the state is that after this event and no other."""
    commits = lived(order, world, turns=12).commits
    for version, state in enumerate(event_by_event(commits), 1):
        assert shown(fold(EXECUTION, as_of(commits, version=version))) == shown(state)


@many
@given(orders, worlds())
def test_a_state_at_a_time_has_what_was_stored_by_then(order: Random, world: World) -> None:
    """Of the commits exactly those count that were stored no later, and each of them whole."""
    commits = lived(order, world, turns=12).commits
    for commit in commits:
        assert list(as_of(commits, at=commit.time)) == [one for one in commits if one.time <= commit.time]


@many
@given(orders, worlds(), st.data())
def test_a_snapshot_is_as_good_as_the_beginning(order: Random, world: World, data: st.DataObject) -> None:
    """The state that comes of a snapshot at any version and the events behind it is the fold of all, whatever life it was."""
    history = [gulp.history for gulp in lived_in_gulps(order, world, turns=12)][-1]
    events = through_the_library(history)
    whole = project(None, events)
    assert whole is not None
    assert visible(whole) == visible(fold(EXECUTION, history.commits))
    version = data.draw(st.integers(1, len(events)))
    before = project(None, events[:version])
    assert before is not None
    taken = Snapshot.of(Snapshot.take(before).stored)
    assert visible(taken.state) == visible(before)
    assert state_to_bytes(taken.state) == taken.written
    again = project(None, [taken, *events[version:]])
    assert again is not None
    assert visible(again) == visible(whole)


@many
@given(orders, worlds())
def test_a_difference_tells_all_that_can_be_seen(order: Random, world: World) -> None:
    """Between two versions nothing is different exactly if the results are equal; what is told are their values."""
    commits = lived(order, world, turns=12).commits
    results = [result_of(state_of_bytes(state_to_bytes(state))) for state in event_by_event(commits)]
    for before, after in pairwise(results):
        changes = difference(before, after)
        assert (changes == []) == (before == after)
        assert all(change.before != change.after for change in changes)
        told = {one.what: (one.before, one.after) for one in changes}
        assert len(told) == len(changes)
        assert {one.what: (one.after, one.before) for one in difference(after, before)} == told


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"{}", b'{"a": 1}', b' {"a":1}', b'{"a":1}\n', b'"\xff"', b"null"])))
def test_any_bytes_come_back_from_a_file(commits: list[bytes]) -> None:
    """Whatever is stored, a commit or not, is in the file as it is."""
    history = [Stored(n, 10 * n, data) for n, data in enumerate(commits, 1)]
    lines = b"".join(line_of("e1", one) + b"\n" for one in history).split(b"\n")
    assert histories_in(lines) == ({"e1": history} if history else {}, {})
