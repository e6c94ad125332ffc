"""Lists by several values of the metadata: whichever is rare, and however many pages, they hold what meets all conditions."""

from pathlib import Path

import msgspec
import pytest
from eventsourcing.persistence import Tracking

from esexec.results import ExecutionStatus
from projections.asks import ListExecutions
from projections.executions import EXECUTIONS, TAGS, TASKS, tag_of
from projections.memory import MemoryStore
from projections.queries import list_executions
from projections.sqlite import SqliteStore
from projections.view import Store, View

COUNT = 900


def metadata(number: int) -> dict[str, int]:
    """One value that is common, one that is rare, one that only the oldest have."""
    return {"half": number % 2, "tenth": number % 10, "old": int(number < 300)}


def status(number: int) -> str:
    return "failed" if number % 3 == 0 else "completed"


@pytest.fixture(params=["memory", "sqlite"], scope="module")
def view(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> View:
    file: Path = tmp_path_factory.mktemp("views") / "views"
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(file)
    view = store.view("executions", [EXECUTIONS, TAGS, TASKS])
    rows, tags = [], []
    for number in range(COUNT):
        at = f"e{number:03}", number, status(number)
        rows.append(EXECUTIONS.row(at[0], number, at[2], "n", "p", number, msgspec.json.encode(number)))
        tags += [TAGS.row(tag_of(name, value), *at, "n", "p") for name, value in metadata(number).items()]
    with view.change(Tracking(view.name, 1)):
        view.put(EXECUTIONS, rows)
        view.put(TAGS, tags)
    return view


@pytest.mark.parametrize("limit", [7, 60, 1000])
@pytest.mark.parametrize("statuses", [(), ("failed",), ("failed", "completed")])
@pytest.mark.parametrize(
    "wanted",
    [{"half": 1}, {"half": 0, "tenth": 4}, {"tenth": 4, "half": 1}, {"half": 1, "old": 1}, {"half": 1, "old": 1, "tenth": 7}],
)
def test_pages_by_metadata_hold_what_meets_all(view: View, wanted: dict[str, int], statuses: tuple[str, ...], limit: int) -> None:
    """Newest first, each once, page after page."""
    found: list[int] = []
    cursor = None
    while True:
        ask = ListExecutions(metadata=wanted, status=tuple(map(ExecutionStatus, statuses)), limit=limit, cursor=cursor)
        page = list_executions(view, ask)
        found += [msgspec.json.decode(one) for one in page.items]
        if (cursor := page.cursor) is None:
            break
        assert len(page.items) == limit
    assert found == [
        number
        for number in reversed(range(COUNT))
        if wanted.items() <= metadata(number).items() and (not statuses or status(number) in statuses)
    ]
