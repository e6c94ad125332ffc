"""Read models in a real PostgreSQL: kept once whatever becomes of it, by one process at a time, in a schema per namespace."""

import asyncio
from threading import Barrier

import psycopg
import pytest

import esexec
from projections import view_of
from projections.role import Projector
from tests.integration.engine import Engine, until
from tests.own_projection import GREETED, Greeted


@esexec.task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@pytest.fixture
async def site(engine: Engine) -> Engine:
    await engine.worker(greet)
    return engine


def cut(url: str) -> int:
    """End all other connections, as a server that restarts does; how many there were."""
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        return len(connection.execute(others).fetchall())


def keeper(site: Engine, url: str) -> Projector:
    return Projector(site.url, namespace=site.namespace, store=url, include=[Greeted])


async def greeted(site: Engine, count: int) -> int:
    """Starts so many, and gives the position of the last."""
    results = await asyncio.gather(*(site.client.execute(greet, {"name": f"n{number % 3}"}) for number in range(count)))
    return max(result.position for result in results)


def told(projector: Projector) -> int:
    return sum(row.times for row in projector.runners["greeted"].view.select(GREETED))


async def test_one_works_and_the_other_takes_over(site: Engine, postgres_url: str) -> None:
    """Of two processes on one database one works, both answer; each event is counted once through the change."""
    async with keeper(site, postgres_url) as first:
        await until(lambda: first.runners["greeted"].state == "working")
        async with keeper(site, postgres_url) as second:
            await until(lambda: second.runners["greeted"].state == "standby")
            last = await greeted(site, 20)
            assert len(await site.client.executions.list(after=last)) == 20
            await asyncio.wait_for(second.runners["greeted"].reached(last), 5)
            assert told(second) == 20
            await first.stop()
            last = await greeted(site, 20)
            await asyncio.wait_for(second.runners["greeted"].reached(last), 8)
            assert second.runners["greeted"].state == "working"
            assert told(second) == 40
    with view_of(Greeted, postgres_url, namespace=site.namespace) as view:
        assert sum(row.times for row in view.select(GREETED)) == 40


async def test_a_server_that_goes_away_is_waited_for(site: Engine, postgres_url: str) -> None:
    """Connections that are cut, also while rows are written: it is tried again, and nothing is lost or doubled."""
    async with keeper(site, postgres_url) as first, keeper(site, postgres_url) as second:
        both = [first.runners["greeted"], second.runners["greeted"]]
        await until(lambda: {one.state for one in both} == {"working", "standby"})
        going = asyncio.create_task(greeted(site, 300))
        ended = 0
        while not going.done():
            ended += await asyncio.to_thread(cut, postgres_url)
            await asyncio.wait([going], timeout=0.1)
        assert ended > 0
        last = max(await going, await greeted(site, 1))
        for name in ("greeted", "executions"):
            runners = [first.runners[name], second.runners[name]]
            await until(lambda: any(one.position >= last for one in runners), 40)  # noqa: B023
        assert told(first) == 301
        assert len(await site.client.executions.list(limit=1_000, after=last)) == 301


async def test_a_cut_within_a_page_is_not_held_against_the_projection(site: Engine, postgres_url: str) -> None:
    """What psycopg throws below `process_event` is the database's failure."""
    cuts = 1

    class Cut(Greeted):
        name = "greeted"

        def finish(self) -> None:
            nonlocal cuts
            if cuts:
                cuts -= 1
                cut(postgres_url)
            self.view.put(GREETED, [GREETED.row("finished", 1)])

    projector = await site.projector(store=postgres_url, include=[Cut], only=["greeted"])
    last = await greeted(site, 3)
    await asyncio.wait_for(projector.runners["greeted"].reached(last), 10)
    assert cuts == 0
    await until(lambda: projector.runners["greeted"].state == "working")  # another cut connection may still have been in the pool
    assert told(projector) == 3 + 1


async def test_namespaces_have_schemas_of_their_own(site: Engine, postgres_url: str) -> None:
    """What one namespace keeps is not found in another, in the same database."""
    async with keeper(site, postgres_url) as projector:
        last = await greeted(site, 2)
        await asyncio.wait_for(projector.runners["greeted"].reached(last), 5)
    with view_of(Greeted, postgres_url, namespace=f"{site.namespace}x") as view:
        assert view.count(GREETED) == 0
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (f"esexec_{site.namespace}",)
        ).fetchall()
    assert {"executions__executions", "greeted__greeted", "esexec_live"} <= {name for (name,) in found}


async def test_several_that_begin_at_once_on_an_empty_database(postgres_url: str) -> None:
    """Each of many that make the same schema and tables at the same moment finds them made: none fails upon another."""
    for number in range(4):
        namespace = f"at-once-{number}"
        ready = Barrier(6)

        def opened(namespace: str = namespace, ready: Barrier = ready) -> str:
            ready.wait(10)
            with view_of(Greeted, postgres_url, namespace=namespace) as view:
                return view.name

        assert await asyncio.gather(*(asyncio.to_thread(opened) for _ in range(6))) == ["greeted"] * 6
