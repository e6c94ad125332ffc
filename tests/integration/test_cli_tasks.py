"""`esexec tasks`, as real processes: what was announced, who has it, and what it takes."""

import asyncio
from pathlib import Path

import pytest

import esexec
from tests.integration.cli import Cli, Done
from tests.integration.engine import Engine

pytestmark = [pytest.mark.xdist_group("cli"), pytest.mark.slow]


@esexec.task(name="ship", max_retries=7)
async def ship(parcel: str) -> str:
    """Sends a parcel."""
    return parcel


@esexec.task(name="ship")
async def ship_2(parcel: str, service: str) -> str:
    """Sends a parcel by a service."""
    return parcel


async def said(engine: Engine, directory: Path, *words: str) -> Done:
    return await asyncio.to_thread(Cli(directory, engine.url), *words, "--namespace", engine.namespace)


async def test_tasks_are_listed_and_shown(engine: Engine, tmp_path: Path) -> None:
    """Each once, with its workers and versions; settings and schemas of one; the exit code of what was never announced."""
    assert (await said(engine, tmp_path, "tasks", "ls")).out == "no tasks: no worker has announced any\n"
    await engine.worker(ship, name="w-1", queues={"one": 1})
    listed = (await said(engine, tmp_path, "tasks", "ls")).out
    assert listed.split() == ["ship", "1", "worker", "one", "Sends", "a", "parcel."]
    await engine.worker(ship_2, name="w-2")
    assert "2 workers  default, one  2 versions" in (await said(engine, tmp_path, "tasks", "ls")).out
    shown = (await said(engine, tmp_path, "tasks", "show", "ship")).out
    heading, said_of_both, schema = shown[shown.index("params of version") :].splitlines()[:3]
    assert (said_of_both, schema) == ("what any of them takes is accepted", "{") and "(w-" in heading
    assert "(w-1)" in shown and "(w-2)" in shown and '"service"' in shown
    (one,) = [task for task in (await said(engine, tmp_path, "tasks", "ls", "--json")).json if task["name"] == "ship"]
    assert [version["workers"] for version in one["versions"]] == [["w-1"], ["w-2"]]
    unknown = await said(engine, tmp_path, "tasks", "show", "shp")
    assert (unknown.code, "did you mean `ship`?" in unknown.err) == (3, True)


async def test_a_start_of_what_nobody_announced_is_warned_about(engine: Engine, tmp_path: Path) -> None:
    """On stderr, once, with the way out; as a field with `--json`."""
    done = await said(engine, tmp_path, "start", "--task", "later")
    assert (done.code, done.err.count("no worker has announced the task later"), "hint:" in done.err) == (0, 1, True)
    as_json = await said(engine, tmp_path, "start", "--task", "later", "--json")
    assert [one["code"] for one in as_json.json["warnings"]] == ["unannounced_task"]
