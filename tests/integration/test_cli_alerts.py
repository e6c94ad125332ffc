"""`esexec alerts`, as real processes beside projections: what it prints, in words and as JSON, and how it exits."""

import asyncio
import json
from pathlib import Path

import pytest

import esexec
from tests.integration.cli import Cli, Done
from tests.integration.engine import Engine, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]


@esexec.task(max_retries=0)
async def bad() -> None:
    raise esexec.ExecutionError("no", code="BROKEN", retry=False)


class Shell:
    """The command line on an engine's server and namespace."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.cli, self.where = Cli(directory, engine.url), ("--namespace", engine.namespace)

    async def __call__(self, *words: str) -> Done:
        return await asyncio.to_thread(self.cli, "alerts", *words, *self.where)


@pytest.fixture
async def shell(engine: Engine, tmp_path: Path) -> Shell:
    await engine.worker(bad)
    return Shell(engine, tmp_path)


async def test_alerts_are_set_and_listed(engine: Engine, shell: Shell) -> None:
    """`set` prints the id; `ls` shows each in words, also where no projections run, and says so; `rm` removes."""
    assert (await shell("ls")).out == "no alerts\n"
    done = await shell("set", "execution_duration", "gt", "2h", "--plan", "import", "--id", "long")
    assert (done.code, done.out, done.err) == (0, "long\n", "")
    done = await shell(
        "set", "cpu_usage", ">", "90", "--duration", "30s", "--webhook", "https://me:secret@example.org/x", "--json"
    )
    assert list(done.json) == ["alert_id"]
    shown = await shell("ls")
    assert "nobody watches" in shown.err
    assert "long" in shown.out
    assert "execution_duration > 2 h 0 min, plan import" in shown.out
    assert "cpu_usage > 90 for 30.0 s" in shown.out
    assert "secret" not in shown.out
    listed = (await shell("ls", "--json")).json
    assert [one["condition"]["metric"] for one in listed["alerts"]] == ["execution_duration", "cpu_usage"]
    assert listed["open"] is None
    assert (await shell("rm", "long")).out == "removed\n"
    gone = await shell("rm", "long")
    assert (gone.code, gone.err.split(":")[0]) == (3, "error [unknown_alert]")


async def test_what_is_no_alert_is_refused(shell: Shell) -> None:
    """With a code, exit 2, before anything is sent."""
    for words, code in [
        (("cost", "gt", "much"), "invalid_value"),
        (("cost", "~", "1"), "invalid_value"),
        (("queue_depth", "gt", "1", "--plan", "p"), "bad_alert"),
        (("cost", "gt", "1", "--webhook", "ftp://h"), "bad_webhook"),
        (("cost", "gt", "1", "--id", "a.b"), "bad_alert_id"),
        (("cost", "gt", "1", "--duration", "soon"), "invalid_duration"),
    ]:
        done = await shell("set", *words)
        assert (done.code, done.err.split(":")[0]) == (2, f"error [{code}]")
    nobody = await shell("history")
    assert nobody.err.startswith("error [no_projections]")


async def test_what_was_told_is_told_again(engine: Engine, shell: Shell) -> None:
    """`history` with all that was triggered, or what is open; `--watch` goes on as it changes."""
    await engine.projector()
    assert (await shell("history")).out == "no alerts\n"
    await shell("set", "execution_failed", "gte", "1", "--id", "failed")
    await shell("set", "error_rate", "gt", "0.5", "--id", "rate")
    with shell.cli.running("alerts", "history", "--watch", "--json", *shell.where) as watching:
        await asyncio.to_thread(watching.until, '"items":[]')
        await engine.client.execute(bad, execution_id="b1")
        await asyncio.to_thread(watching.until, "b1")
        assert json.loads(watching.seen.splitlines()[-1])
    await until(lambda: told(engine, 2))
    page = await shell("history")
    assert "execution b1 failed: [BROKEN] no" in page.out
    assert "over after 0 ms" in page.out
    assert [one["alert_id"] for one in (await shell("history", "--open", "--json")).json["items"]] == ["rate"]
    assert [one["state"] for one in (await shell("history", "--execution", "b1", "--json")).json["items"]] == ["resolved"]
    first = (await shell("history", "--limit", "1", "--since", "1h", "--json")).json
    rest = (await shell("history", "--cursor", first["cursor"], "--json")).json
    assert {one["alert_id"] for one in (*first["items"], *rest["items"])} == {"failed", "rate"}
    assert "as_of" in first
    assert "cursor" not in rest
    assert f"more with --cursor {first['cursor']}" in (await shell("history", "--limit", "1")).out
    assert (await shell("history", "--until", "1h")).out == "no alerts\n"
    shown = await shell("ls")
    assert "1 open" in shown.out
    assert "error_rate of the namespace is 100 %, above 50 %" in shown.out


async def told(engine: Engine, count: int) -> bool:
    return len(await engine.client.alerts.history()) == count
