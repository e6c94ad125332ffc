"""Projections that users bring along: found where they are, kept, asked about, and refused where they cannot be."""

import asyncio
import sqlite3
from pathlib import Path
from types import new_class
from typing import Any

import pytest

import esexec
from esexec import InternalError, Unavailable, ValidationError
from projections import Ask, Listed, Projection, view_of
from projections.including import check_projection, projections_in
from projections.role import Projector
from projections.sqlite import SqliteStore
from tests.integration.engine import Engine
from tests.own_projection import GREETED, Greeted, MostGreeted

FILE = Path(__file__).parents[1] / "own_projection.py"


@esexec.task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@pytest.fixture
async def site(engine: Engine) -> Engine:
    await engine.worker(greet)
    return engine


async def test_a_question_of_ones_own_is_answered(site: Engine, tmp_path: Path) -> None:
    """By its name, as of a position, with errors as those of any other; and its tables can be read beside it."""
    file = tmp_path / "views.sqlite"
    await site.projector(include=[Greeted], store=file)
    for name in ("Ada", "Bo", "Ada"):
        last = await site.client.execute(greet, {"name": name})
    ask = site.client.queries.ask
    answer = await ask("greeted.most", MostGreeted(after=last.position, limit=1), Listed[dict[str, Any]])
    assert answer.items == [{"name": "Ada", "times": 2}]
    assert answer.as_of.position >= last.position
    with pytest.raises(ValidationError) as refused:
        await ask("greeted.most", MostGreeted(limit=0), dict)
    assert refused.value.code == "bad_limit"
    with view_of(Greeted, file) as view:
        assert [tuple(row) for row in view.select(GREETED, order=["name"])] == [("Ada", 2), ("Bo", 1)]
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT sum(times) FROM greeted__greeted").fetchone() == (3,)
    database.close()
    site.errors_expected = True
    with pytest.raises(InternalError) as broken:
        await ask("greeted.most", MostGreeted(limit=13), dict)
    assert "on purpose" in broken.value.message


async def test_each_process_says_how_it_is(site: Engine, tmp_path: Path) -> None:
    """Two with the same projections and one with another: all of them are told, those that work first."""
    file = tmp_path / "views.sqlite"
    await site.projector(store=file)
    await site.projector(store=file)
    await site.projector(store=file, include=[Greeted], only=["greeted"])
    last = await site.client.execute(greet, {"name": "Ada"})
    await site.client.executions.list(after=last.position)

    async def states() -> list[tuple[str, str]]:
        said = (await site.client.queries.projections()).projections
        return [(one.name, one.state) for one in said if one.name in ("executions", "greeted")]

    async with asyncio.timeout(5):
        while sorted(await states()) != [("executions", "standby"), ("executions", "working"), ("greeted", "working")]:
            pass
    found = await states()
    assert found.index(("executions", "working")) < found.index(("executions", "standby"))


async def test_nobody_says_how_it_is(site: Engine) -> None:
    """Where no projections run that is an error of its own."""
    with pytest.raises(Unavailable) as nobody:
        await site.client.queries.projections()
    assert nobody.value.code == "no_projections"


@pytest.mark.parametrize("place", ["tests.own_projection", str(FILE), "tests.own_projection:Greeted"])
def test_a_module_is_named_as_that_of_tasks(place: str) -> None:
    """By its dotted name, by its file, or with one projection of it."""
    assert [kind.name for kind in projections_in(place)] == ["greeted"]


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("tests.no_such_module", "no_module"),
        ("no/such/file.py", "no_module"),
        ("tests.own_projection:Nobody", "no_module"),
        ("tests.own_projection:GREETED", "no_projection"),
        ("tests.cli_tasks", "no_projection"),
    ],
)
def test_what_is_no_projection_is_said(place: str, code: str) -> None:
    """A module that is not there, or holds none, has a code of its own."""
    with pytest.raises(ValidationError) as refused:
        projections_in(place)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "said",
    [
        {"name": ""},
        {"name": "Greeted"},
        {"name": "x" * 41},
        {"questions": {"a b": (Ask, None)}},
        {"questions": {"greeted.>": (Ask, None)}},
        {"questions": {"fine": (dict, None)}},
    ],
)
def test_a_projection_that_cannot_be_is_refused(said: dict[str, Any]) -> None:
    """Names that no database and no subject would take, and questions that are none."""
    with pytest.raises(ValidationError) as refused:
        check_projection(new_class("Wrong", (Greeted,), {}, lambda body: body.update(said)))
    assert refused.value.code == "bad_projection"


async def test_a_question_that_is_taken_is_refused(site: Engine, tmp_path: Path) -> None:
    """Nobody answers in the place of another."""

    class Rival(Greeted):
        name = "rival"
        questions = {"executions.list": (Ask, lambda view, ask: None)}

    with pytest.raises(ValidationError) as refused:
        await Projector(site.url, namespace=site.namespace, store=tmp_path / "x.sqlite", include=[Rival]).start()
    assert refused.value.code == "name_taken"


async def test_a_database_that_fails_below_a_projection_is_waited_for(site: Engine, tmp_path: Path) -> None:
    """What the database throws while rows are written is not held against the projection; what it was given is."""
    site.errors_expected = True
    left, store = 2, SqliteStore(tmp_path / "views.sqlite")

    class Unlucky(Greeted):
        name = "greeted"

        def finish(self) -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error

    class Wrong(Projection):
        name = "wrong"
        tables = (GREETED,)

        def process_event(self, domain_event: Any, tracking: Any) -> None:
            self.view.put(GREETED, [GREETED.row("x", {"no": "number"})])

    projector = await site.projector(include=[Unlucky, Wrong], store=store)
    last = await site.client.execute(greet, {"name": "Ada"})
    await asyncio.wait_for(projector.runners["greeted"].reached(last.position), 8)
    assert left < 0
    assert [tuple(row) for row in projector.runners["greeted"].view.select(GREETED)] == [("Ada", 1)]
    await asyncio.wait_for(projector.runners["wrong"].reached(last.position), 8)
    assert projector.runners["wrong"].state == "failed"
    await projector.stop()
    store.close()
