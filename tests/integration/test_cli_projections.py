"""`ls`, `top`, `projection` and the role `projections`, as processes: what they print, and how they end."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from esexec.nats.connection import connect
from esexec.nats.subjects import Subjects
from tests.integration.cli import COMMAND, TASKS, Cli, plan
from tests.server import NatsServer

pytestmark = pytest.mark.slow


class Site:
    """A command line on a server and namespace, with an executor and a worker beside it."""

    def __init__(self, cli: Cli, namespace: str) -> None:
        self.cli, self.where = cli, ("--namespace", namespace)

    def __call__(self, *words: str):  # type: ignore[no-untyped-def]
        return self.cli(*words, *self.where)

    def running(self, *words: str):  # type: ignore[no-untyped-def]
        return self.cli.running(*words, *self.where)


@pytest.fixture
def site(tmp_path: Path, nats_server: NatsServer, namespace: str):  # type: ignore[no-untyped-def]
    cli = Cli(tmp_path, nats_server.url)
    where = ("--namespace", namespace)
    with cli.running("executor", *where) as executor, cli.running("worker", *TASKS, *where) as worker:
        executor.until("ready")
        worker.until("ready")
        yield Site(cli, namespace)


def greet(site: Site, name: str, *more: str) -> str:
    done = site("start", "--task", "greet", "--input", json.dumps({"name": name}), "--wait", "--json", *more)
    return str(done.json["execution_id"])


def told(site: Site, name: str) -> list[dict[str, Any]]:
    """What is said of a projection, by each process."""
    return [one for one in site("projection", "ls", "--json").json if one["name"] == name]


def test_executions_are_listed(site: Site) -> None:
    """By any mix of conditions, in words and as JSON; every status has its sign; steps with --tasks; page by page."""
    with site.running("projections") as keeper:
        keeper.until("ready")
        first = greet(site, "Ada")
        site("start", "--task", "fail", "--input", '{"message": "out of luck"}', "--execution-id", "luckless", "--wait")
        site("start", "--task", "hold", "--input", '{"until": "gate"}', "--execution-id", "held")
        site("pause", "held")
        named = plan({"task": "greet", "params": {"name": "a"}, "compensate": "ungreet"}, {"task": "fail"}, name="pair")
        pair = site("start", site.cli.write("pair.json", named), "--execution-id", "pair", "--wait", "--json").json

        words = site("ls")
        assert words.code == 0
        assert [line.split()[1] for line in words.out.splitlines()] == ["pair", "held", "luckless", first]
        assert "paused" in words.out
        assert "rolled_back" in words.out
        assert "out of luck" in words.out
        listed = site("ls", "--json").json
        assert [one["execution_id"] for one in listed["items"]] == ["pair", "held", "luckless", first]
        assert listed["as_of"]["position"] >= pair["position"]
        assert [
            one["name"] for one in site("ls", "--status", "failed", "--name", "fail", "--since", "1h", "--json").json["items"]
        ] == ["fail"]
        assert site("ls", "--until", "1h").out == "no executions\n"
        page = site("ls", "--limit", "3")
        assert "more with --cursor" in page.out
        rest = site("ls", "--limit", "3", "--cursor", page.out.split()[-1])
        assert first in rest.out
        assert "--cursor" not in rest.out
        tasks = site("ls", "--tasks", "--execution", "pair", "--json").json["items"]
        assert {one["task_id"] for one in tasks} == {"greet", "fail"}
        assert "luckless/fail" in site("ls", "--tasks", "--status", "failed").out
        site.cli.write("gate", "open")


def test_metadata_is_asked_for_as_json_or_text(site: Site) -> None:
    """`--meta` finds numbers as numbers and words as words."""
    with site.running("projections") as keeper:
        keeper.until("ready")
        for number, city in enumerate(("Oslo", "Rome")):
            greet(site, city, "--meta", f"n={number}", "--meta", f"city={city}", "--execution-id", city)
        found = {
            said: site("ls", "--meta", said, "--json").json["items"] for said in ("n=1", 'n="1"', "city=Oslo", 'city="Oslo"')
        }
    assert {said: [one["execution_id"] for one in items] for said, items in found.items()} == {
        "n=1": ["Rome"],
        'n="1"': [],
        "city=Oslo": ["Oslo"],
        'city="Oslo"': ["Oslo"],
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("ls", "--meta", "nothing"), 2),
        (("ls", "--since", "yesterday"), 2),
        (("ls", "--execution", "x"), 2),
        (("ls", "--tasks", "--meta", "a=1"), 2),
        (("projections", "--include", "no.such.module"), 2),
        (("projections", "--include", "broken.py"), 2),
        (("projections", "--only", "nothing"), 2),
        (("projections", "--database", "postgresql://nobody@127.0.0.1:1/x"), 5),
        (("projection", "rebuild", "nothing"), 2),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, nats_server: NatsServer, namespace: str, words: tuple[str, ...], code: int
) -> None:
    """In a line with a code and a hint, never a traceback."""
    cli = Cli(tmp_path, nats_server.url)
    cli.write("broken.py", "1 / 0\n")
    done = cli(*words, "--namespace", namespace)
    assert done.code == code, done.err
    assert done.err.startswith("error [")


def test_nobody_answers(site: Site) -> None:
    """Without projections a list is refused with 5 and says what is missing."""
    for words in (("ls",), ("ls", "--watch"), ("projection", "ls")):
        done = site(*words)
        assert done.code == 5
        assert "[no_projections]" in done.err
        assert "esexec projections" in done.err


def test_a_list_is_watched(site: Site) -> None:
    """With --watch it is asked again each second, and ends with Ctrl-C, as JSON lines and as words."""
    with site.running("projections") as keeper:
        keeper.until("ready")
        with site.running("ls", "--watch", "--json") as watch, site.running("ls", "--watch") as words:
            assert json.loads(watch.until("as_of").splitlines()[-1])["items"] == []
            words.until("no executions")
            identity = greet(site, "Ada")
            last = watch.until(identity).splitlines()[-1]
            assert [one["execution_id"] for one in json.loads(last)["items"]] == [identity]
            words.until(identity)
            assert watch.end(signal.SIGINT).code == 130
            assert words.end(signal.SIGINT).code == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_projections_end_in_order(site: Site, number: int) -> None:
    """Told to end they are done with their page, exit with 0, and the next goes on where they were."""
    first = greet(site, "Ada")
    for _ in range(2):
        with site.running("projections", "--json") as keeper:
            assert "executions" in json.loads(keeper.until("ready"))["projections"]
            second = greet(site, "Bo")
            assert site("ls", "--json").json["items"][0]["execution_id"] == second
            done = keeper.end(number)
            assert done.code == 0
            assert "draining" in done.out
    database = site.cli.directory / ".esexec" / "projections" / f"{site.where[1]}.sqlite"
    with closing(sqlite3.connect(database)) as views:
        assert views.execute("SELECT count(*) FROM executions__executions WHERE id = ?", (first,)).fetchone() == (1,)


def test_one_works_and_the_other_takes_over(site: Site) -> None:
    """Of two processes one stands by; when the first is killed, the other works within seconds."""
    with site.running("projections") as first, site.running("projections") as second:
        first.until("ready")
        second.until("ready")
        greet(site, "Ada")
        assert sorted(one["state"] for one in told(site, "executions")) == ["standby", "working"]
        worker = next(one for one in told(site, "executions") if one["state"] == "working")["host"]
        victim = next(one for one in (first, second) if worker.endswith(f"/{one.process.pid}"))
        victim.process.kill()
        identity = greet(site, "Bo")
        with site.running("ls", "--watch", "--json") as watch:
            watch.until(identity)
        [left] = told(site, "executions")
        assert left["state"] == "working"


def test_projections_are_told(site: Site) -> None:
    """`projection ls` says how each is; one whose code threw gives exit code 1, with the commit that did it."""
    with site.running("projections", "--include", "tests.own_projection", "--include", "careless.py", "--json") as keeper:
        pass  # careless.py is not there yet: it ends by itself
    assert keeper.process.returncode != 0
    site.cli.write(
        "careless.py",
        "from projections import Projection, Table, events\n"
        "LAST = Table('last', key=('id',), columns={'id': int})\n"
        "class Careless(Projection):\n"
        "    name, tables = 'careless', (LAST,)\n"
        "    def process_event(self, event, tracking):\n"
        "        if isinstance(event.event, events.ExecutionCreated):\n"
        "            raise ValueError('on purpose')\n",
    )
    with site.running("projections", "--include", "tests.own_projection", "--include", "careless.py") as keeper:
        keeper.until("ready")
        ok = site("projection", "ls")
        assert ok.code == 0
        names = [line.split()[0] for line in ok.out.splitlines()]
        assert names == sorted(names)
        assert {"careless", "executions", "greeted"} <= set(names)
        identity = greet(site, "Ada")
        keeper.until("projection_failed")
        bad = site("projection", "ls")
        assert bad.code == 1
        assert f"commit 1 of {identity}" in bad.out
        assert [told(site, name)[0]["state"] for name in ("careless", "greeted")] == ["failed", "working"]
        assert keeper.end().code == 0


def test_a_read_model_is_made_anew(site: Site) -> None:
    """Equal: it answers from now on. Not equal: the old one does, unless --swap. With --into it only stands beside."""
    where = ("--database", "views.sqlite")
    with site.running("projections", *where) as keeper:
        keeper.until("ready")
        identity = greet(site, "Ada")
        assert len(site("ls", "--json").json["items"]) == 1

        made = site("projection", "rebuild", "executions", *where, "--json")
        assert made.code == 0
        assert (made.json["view"], made.json["old"]) == ("executions_b", "executions")
        assert (made.json["equal"], made.json["swapped"]) == (True, True)
        with site.running("projection", "ls") as _, closing(sqlite3.connect(site.cli.directory / "views.sqlite")) as views:
            assert views.execute("SELECT view FROM esexec_live").fetchall() == [("executions_b",)]
            second = greet(site, "Bo")
            with site.running("ls", "--watch", "--json") as watch:
                watch.until(second)
            views.execute("DELETE FROM executions_b__executions WHERE id = ?", (identity,))
            views.commit()

        kept = site("projection", "rebuild", "executions", *where)
        assert kept.code == 1
        assert "not equal to executions_b" in kept.out
        assert "--swap" in kept.out
        beside = site("projection", "rebuild", "executions", *where, "--into", "trial", "--json")
        assert beside.code == 0
        assert (beside.json["view"], beside.json["equal"], beside.json["swapped"]) == ("trial", False, False)
        taken = site("projection", "rebuild", "executions", *where, "--into", "executions_b")
        assert taken.code == 2
        assert "[name_taken]" in taken.err
        swapped = site("projection", "rebuild", "executions", *where, "--swap")
        assert swapped.code == 0
        assert "executions answers for executions now" in swapped.out
        with site.running("ls", "--watch", "--json") as watch:
            watch.until(identity)


def test_top_tells_it_all(site: Site) -> None:
    """Queues, workers that were heard of, executions and projections; as JSON lines each second, and as words; Ctrl-C gives 0."""
    with site.running("projections") as keeper:
        keeper.until("ready")
        greet(site, "Ada")
        site("start", "--task", "hold", "--input", '{"until": "gate"}', "--execution-id", "held")
        waits = plan({"task": "greet", "params": {"name": "x"}, "queue": "nobody"})
        for number in range(2):
            site("start", site.cli.write("waits.json", waits), "--execution-id", f"waits-{number}")
        with site.running("top", "--json") as top:
            top.until("projections")
            seen = json.loads(top.until("held").splitlines()[-1])
            lines = len(top.seen.splitlines())
            while len(top.seen.splitlines()) < lines + 2:
                top.until("time")
            assert top.end(signal.SIGINT).code == 0
        lanes = {(one["queue"], one["priority"]): one for one in seen["queues"]}
        assert lanes["default", 5]["in_flight"] == 1
        assert lanes["nobody", 5]["waiting"] == 2
        assert seen["counts"]["completed"] == 1
        assert seen["counts"]["running"] == 3
        assert {one["execution_id"] for one in seen["running"]} == {"held", "waits-0", "waits-1"}
        assert "executions" in [one["name"] for one in seen["projections"]]
        words = site("top", "--once")
        assert words.code == 0
        for said in ("queues", "workers", "✓ 1 completed", "held", "executions  working"):
            assert said in words.out
        site.cli.write("gate", "open")


async def test_top_hears_workers(site: Site, nats_server: NatsServer, namespace: str) -> None:
    """What workers say of their processes is shown; what cannot be read is not, and disturbs nothing."""
    subject = Subjects(namespace).samples
    said = {"worker": "w1", "cpu_usage": 12.5, "memory_usage": 3.1, "memory_bytes": 50_000_000, "running": 2, "executions": ["x"]}
    async with await connect(nats_server.url, name="test") as connection:
        with site.running("top", "--json") as top:
            top.until("time")
            at = json.loads(top.seen.splitlines()[-1])["time"]
            for body in (b"{", b'{"worker": 1}', json.dumps({**said, "at": at}).encode()):
                await connection.publish(subject, body)
            await connection.flush()
            seen = json.loads(top.until('"w1"').splitlines()[-1])
    [one] = [one for one in seen["workers"] if one["worker"] == "w1"]
    assert one["running"] == 2


def test_top_goes_without_projections(site: Site) -> None:
    """It says that none run, and shows the rest."""
    greet(site, "Ada")
    seen = site("top", "--once", "--json").json
    assert (seen["counts"], seen["running"], seen["projections"]) == (None, None, None)
    assert [one["queue"] for one in seen["queues"]] == ["default"]
    words = site("top", "--once").out
    assert "esexec projections" in words
    assert "none run here" in words


def test_top_draws_on_a_terminal(site: Site) -> None:
    """On a terminal the picture is drawn in place on a screen of its own; Ctrl-C gives the old one back and ends with 0."""
    ours, theirs = pty.openpty()
    environment = {**site.cli.environment, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    top = subprocess.Popen([*COMMAND, "top", *site.where], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    too_long = threading.Timer(30, top.kill)
    too_long.start()
    seen, has_told = b"", False
    try:
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            seen += data
            if not has_told and seen.count(b"workers") >= 2:
                has_told = True
                top.send_signal(signal.SIGINT)
            if not data:
                break
        assert top.wait() == 0
    finally:
        too_long.cancel()
        os.close(ours)
    assert seen.startswith(b"\x1b[?1049h")
    assert b"\x1b[?1049l" in seen
