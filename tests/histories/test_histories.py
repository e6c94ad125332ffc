"""Golden histories: what was stored once must fold to the same state for ever. These files never change once merged.

`<kind>.jsonl` holds the stored bytes, one commit a line; `<kind>.json` what an execution with that history looks like. A new kind
is added by `python -m tests.histories.make`; a changed event gets an upcaster, and the old files stay as they are.
"""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from esexec.domain import events as e
from esexec.domain.evolve import fold
from esexec.log import codec
from esexec.log.port import Stored
from esexec.log.verify import verify
from tests.histories.kinds import KINDS
from tests.histories.make import EXECUTION, picture

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.jsonl"))


def stored(file: Path) -> list[Stored]:
    return [Stored(n, n, line) for n, line in enumerate(file.read_bytes().splitlines(), 1)]


def difference(recorded: Any, now: Any, where: str = "") -> str | None:
    """Where something that was recorded is not said any more, or said otherwise; None: nowhere."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        places = ((f"{where}.{key}", key) for key in recorded)
        told = (difference(recorded[key], now[key], place) if key in now else place for place, key in places)
        return next((one for one in told if one is not None), None)
    if isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        told = (difference(one, other, f"{where}[{index}]") for index, (one, other) in enumerate(zip(recorded, now, strict=True)))
        return next((one for one in told if one is not None), None)
    return None if recorded == now else f"{where}: {recorded!r} became {now!r}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_history_folds_to_what_it_folded_to_when_it_was_stored(file: Path) -> None:
    """Every field that anyone could see of the execution is as it was; what can be seen besides may have been added since."""
    state = fold(EXECUTION, [codec.decode(one.data) for one in stored(file)])
    assert difference(json.loads(file.with_suffix(".json").read_text()), json.loads(picture(state))) is None


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
    assert told == {str(kind.__struct_config__.tag) for kind in get_args(e.ExecutionEvent)}
