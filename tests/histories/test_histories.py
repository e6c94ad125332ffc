"""Golden histories: what was stored once must fold to the same state for ever. These files never change once merged.

`<kind>.jsonl` holds the stored bytes, one commit a line; `<kind>.json` what an execution with that history looks like. A new kind
is added by `python -m tests.histories.make`; a changed event gets an upcaster, and the old files stay as they are.
"""

import json
from pathlib import Path

import pytest

from esexec.domain import events as e
from esexec.domain.state import fold
from esexec.log import codec
from esexec.log.port import Stored
from esexec.log.verify import verify
from tests.histories.make import EXECUTION, KINDS, picture

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.jsonl"))


def stored(file: Path) -> list[Stored]:
    return [Stored(n, n, line) for n, line in enumerate(file.read_bytes().splitlines(), 1)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_history_folds_to_what_it_folded_to_when_it_was_stored(file: Path) -> None:
    """Every field that anyone can see of the execution is as it was."""
    state = fold(EXECUTION, [codec.decode(one.data) for one in stored(file)])
    assert json.loads(picture(state)) == json.loads(file.with_suffix(".json").read_text())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_history_verifies(file: Path) -> None:
    """Its chain holds and its events are lawful under today's law."""
    found = verify(EXECUTION, stored(file))
    assert found.ok, found.problem


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_commit_is_encoded_as_it_was(file: Path) -> None:
    """Reading and writing it again gives the same bytes, so old and new executors agree on what is their own."""
    for one in stored(file):
        assert codec.encode(codec.decode(one.data)) == one.data


def test_every_kind_has_its_files() -> None:
    """Each kind that can be made is there, and nothing is there that nobody knows how to make."""
    assert {file.stem for file in FILES} == set(KINDS)


def test_every_event_of_an_execution_stands_in_some_history() -> None:
    """No event type of executions lacks a golden example."""
    told = {e.type_of(event) for file in FILES for one in stored(file) for event in codec.decode(one.data).events}
    shared = {"key_bound", "namespace_configured", "tasks_announced"}
    assert told == set(e.TYPES) - shared
