"""Making a read model anew beside the one that answers, on a real server: compared, swapped, and followed by who keeps it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import esexec
from esexec import ValidationError
from esexec.nats.subjects import Subjects
from projections.executions import EXECUTIONS, ExecutionsProjection
from projections.rebuild import Rebuilt, rebuild
from projections.role import Projector, reading
from projections.runner import live_view
from projections.sqlite import SqliteStore
from projections.view import Store
from tests.integration.engine import Engine, until
from tests.own_projection import GREETED, Greeted


@esexec.task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@pytest.fixture
async def site(engine: Engine) -> Engine:
    await engine.worker(greet)
    return engine


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = SqliteStore(tmp_path / "views.sqlite")
    yield store
    store.close()


async def made(
    site: Engine, store: Store, kind: type[Greeted] | type[ExecutionsProjection] = Greeted, **options: object
) -> Rebuilt:
    async with reading(site.url, Subjects(site.namespace), store) as room:
        return await rebuild(kind, store, room.source, room.log, **options)


def told(projector: Projector) -> dict[str, int]:
    return {row.name: row.times for row in projector.runners["greeted"].view.select(GREETED)}


async def test_it_takes_its_place_while_executions_go_on(site: Engine, tmp_path: Path, store: Store) -> None:
    """Equal as of one position, it answers; who works and who stands by goes over, and nothing is lost or doubled."""
    file = tmp_path / "views.sqlite"
    async with (
        Projector(site.url, namespace=site.namespace, store=file, include=[Greeted]) as first,
        Projector(site.url, namespace=site.namespace, store=file, include=[Greeted]) as second,
    ):
        both = [first.runners["greeted"], second.runners["greeted"]]
        await until(lambda: {one.state for one in both} == {"working", "standby"})
        ended = 0

        async def go_on() -> None:
            nonlocal ended
            while True:
                await site.client.execute(greet, {"name": f"n{ended % 3}"})
                ended += 1

        going = asyncio.create_task(go_on())
        await until(lambda: ended > 10)
        for kind in (Greeted, ExecutionsProjection):
            done = await made(site, store, kind)
            assert (done.equal, done.swapped, done.view) == (True, True, f"{kind.name}_b")
        since = ended
        await until(lambda: ended > since + 10)
        going.cancel()
        await asyncio.wait([going])
        last = await site.client.execute(greet, {"name": "last"})
        await until(lambda: {one.view.name for one in both} == {"greeted_b"})
        for one in both:
            await asyncio.wait_for(one.reached(last.position), 5)
        for projector in (first, second):
            assert sum(told(projector).values()) == len(await site.client.list_ids())
        await asyncio.wait_for(first.runners["executions"].reached(last.position), 5)
        assert first.runners["executions"].view.count(EXECUTIONS) == len(await site.client.list_ids())


@pytest.mark.slow
async def test_one_that_differs_takes_its_place_only_if_wanted(site: Engine, tmp_path: Path, store: Store) -> None:
    """What was changed by hand shows; the old one is kept, until it is made anew in its turn."""
    last = await site.client.execute(greet, {"name": "Ada"})
    projector = await site.projector(store=tmp_path / "views.sqlite", include=[Greeted])
    await asyncio.wait_for(projector.runners["greeted"].reached(last.position), 5)
    with store._datastore.transaction(commit=True) as cursor:  # type: ignore[attr-defined]
        cursor.execute("UPDATE greeted__greeted SET times = 7")

    kept = await made(site, store)
    assert (kept.equal, kept.swapped) == (False, False)
    assert live_view(Greeted, store) == "greeted"
    assert told(projector) == {"Ada": 7}
    beside = await made(site, store, into="trial")
    assert (beside.equal, beside.swapped, beside.view) == (False, False, "trial")
    with pytest.raises(ValidationError) as taken:
        await made(site, store, into="greeted")
    assert taken.value.code == "name_taken"
    for odd in ('x" (y INT); --', "Trial", "t" * 25, ""):
        with pytest.raises(ValidationError) as refused:
            await made(site, store, into=odd)
        assert refused.value.code == "bad_name"
    wanted = await made(site, store, swap=True)
    assert (wanted.equal, wanted.swapped) == (False, True)
    await until(lambda: told(projector) == {"Ada": 1})
    again = await made(site, store)
    assert (again.view, again.old, again.equal, again.swapped) == ("greeted", "greeted_b", True, True)


async def test_a_view_is_made_by_one_at_a_time(site: Engine, tmp_path: Path, store: Store) -> None:
    """Who makes the same view at the same time is refused, as nobody could say what came of both; afterwards it can be made."""
    await site.client.execute(greet, {"name": "Ada"})
    theirs = SqliteStore(tmp_path / "views.sqlite")
    assert theirs.lock("greeted_b.made")
    with pytest.raises(ValidationError, match="by somebody else"):
        await made(site, store)
    theirs.close()
    for name in ("greeted_b", "greeted"):
        assert (await made(site, store)).view == name


async def test_views_of_other_projections_stay_what_they_are(site: Engine, store: Store) -> None:
    """Whether they answer under their own name or another; a projection's own former view is not another's."""
    await site.client.execute(greet, {"name": "Ada"})
    assert (await made(site, store, ExecutionsProjection)).view == "executions_b"
    for name in ("executions", "executions_b"):
        with pytest.raises(ValidationError, match="a view of executions") as refused:
            await made(site, store, into=name, others=[ExecutionsProjection, Greeted])
        assert refused.value.code == "name_taken"
    assert (await made(site, store, others=[ExecutionsProjection, Greeted])).view == "greeted_b"
    assert (await made(site, store, others=[ExecutionsProjection, Greeted])).view == "greeted"


async def test_one_that_was_never_kept_is_made(site: Engine, store: Store) -> None:
    """Where there was none before it answers at once."""
    await site.client.execute(greet, {"name": "Ada"})
    done = await made(site, store)
    assert (done.equal, done.swapped) == (None, True)
    assert done.events > 0


async def test_a_new_form_begins_anew_beside_the_old(site: Engine, tmp_path: Path, store: Store) -> None:
    """Also after the old one was made anew: each form has views of its own, and a process with the old one goes on."""

    class New(Greeted):
        name = "greeted"
        form = 2

    last = await site.client.execute(greet, {"name": "Ada"})
    file = tmp_path / "views.sqlite"
    old = await site.projector(store=file, include=[Greeted], only=["greeted"])
    await asyncio.wait_for(old.runners["greeted"].reached(last.position), 5)
    assert (await made(site, store)).swapped
    await until(lambda: old.runners["greeted"].view.name == "greeted_b")
    new = await site.projector(store=file, include=[New], only=["greeted"])
    await asyncio.wait_for(new.runners["greeted"].reached(last.position), 5)
    assert new.runners["greeted"].view.name == "greeted_2"
    last = await site.client.execute(greet, {"name": "Bo"})
    for one in (old, new):
        await asyncio.wait_for(one.runners["greeted"].reached(last.position), 5)
        assert one.runners["greeted"].state == "working"
        assert told(one) == {"Ada": 1, "Bo": 1}
