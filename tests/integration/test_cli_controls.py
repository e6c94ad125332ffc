"""The verbs on an execution that exists, as real processes: what they print, in words and as JSON, and their exit codes."""

import json
from collections.abc import Iterator

import pytest

from tests.integration.cli import TASKS, Cli, Running, plan

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]

GREET = {"task": "greet", "params": {"name": "x"}, "compensate": "ungreet"}
HOLD = {"id": "hold", "task": "hold", "params": {"until": "${input}"}, "depends_on": ["first"]}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, Running]]:
    """`esexec dev` in one process, and a command line for others in the same directory."""
    cli = Cli(tmp_path_factory.mktemp("dev"))
    cli.write("plan.json", plan({"id": "first", **GREET}, HOLD, {"id": "last", **GREET, "depends_on": ["hold"]}))
    with cli.running("dev", *TASKS) as role:
        role.until("try in another terminal")
        yield cli, role


@pytest.fixture
def cli(dev: tuple[Cli, Running]) -> Cli:
    """A command line beside a running `esexec dev`."""
    return dev[0]


def begun(cli: Cli, execution_id: str) -> str:
    """An execution whose second step waits for a file of the execution's name."""
    assert cli("start", "plan.json", "--execution-id", execution_id, "--input", json.dumps(execution_id)).code == 0
    with cli.running("watch", execution_id) as watch:
        watch.until("hold started")
    return execution_id


def test_pause_and_resume(cli: Cli) -> None:
    """`pause` says whether it paused, `show` why it stands; `resume` lets it go on; after the end both are refused (4)."""
    execution = begun(cli, "paused")
    assert cli("pause", execution, "--reason", "lunch").out == "paused\n"
    assert cli("pause", execution, "--json").json == {"execution_id": execution, "paused": False, "status": "paused"}
    assert "paused: lunch" in cli("show", execution).out
    assert cli("resume", execution, "--json").json == {"execution_id": execution, "resumed": True, "status": "running"}
    assert cli("resume", execution).out == "it was not paused\n"
    cli.write(execution, "open")
    assert cli("watch", execution).code == 0
    done = cli("pause", execution)
    assert (done.code, done.err.splitlines()[0].split(":")[0]) == (4, "error [ended]")


def test_retry(cli: Cli) -> None:
    """`retry` prints the id of what runs again; `--wait` tells only what follows; `--new-id` leaves the old one."""
    cli.write("failing.json", plan({"id": "first", **GREET}, {"id": "b", "task": "fail_until", "params": {"exists": "${input}"}}))
    words = ("start", "failing.json", "--input", '"mended"', "--execution-id", "retried", "--wait")
    assert cli(*words).code == 1
    assert cli("retry", "retried", "--step", "nope").code == 3
    cli.write("mended", "now")
    forked = cli("retry", "retried", "--new-id", "forked", "--json")
    assert (forked.json["execution_id"], forked.json["retried"]) == ("forked", "retried")
    assert cli("watch", "forked").code == 0
    assert "carries on from  retried" in cli("show", "forked").out
    done = cli("retry", "retried", "--wait")
    assert done.code == 0
    assert "execution retried, as run 2" in done.out
    assert "b failed" not in done.out
    refused = cli("retry", "retried", "--json")
    assert (refused.code, json.loads(refused.err)["error"]["code"]) == (4, "nothing_to_retry")


def test_rollback(cli: Cli) -> None:
    """`rollback --dry-run` shows what would be undone and changes nothing; `rollback --wait` does it and exits 0."""
    cli.write("free", "open")
    assert cli("start", "plan.json", "--execution-id", "undone", "--input", '"free"', "--wait").code == 0
    rows = [line.split() for line in cli("rollback", "undone", "--dry-run").out.splitlines()]
    assert [row[:2] for row in rows] == [["step", "completed"], ["1", "last"], ["2", "hold"], ["3", "first"]]
    planned = cli("rollback", "undone", "--dry-run", "--json").json
    assert planned["execution_id"] == "undone"
    assert [(undo["order"], undo["step"], undo["task"], undo["reason"]) for undo in planned["undo"]] == [
        (1, "last", "ungreet", None),
        (2, "hold", None, "no_compensation"),
        (3, "first", "ungreet", None),
    ]
    assert planned["undo"][0]["params"] == {"name": "x", "greeting": "Hello, x!"}
    assert planned["undo"][0]["completed_at"]
    assert cli("show", "undone", "--json").json["status"] == "completed"
    done = cli("rollback", "undone", "--wait", "--reason", "wrong")
    assert done.code == 0, done
    assert "rollback started on command: wrong" in done.out
    assert "hold is not undone: nothing is known that undoes it" in done.out
    assert "↺ rolled back" in done.out
    watched = cli("watch", "undone")
    assert watched.code == 1
    assert watched.out.startswith("  0 %  execution of trial created")
    refused = cli("rollback", "undone")
    assert refused.code == 4
    assert "undone is undone already" in refused.err
    assert "nothing undoes it" in cli("show", "undone").out


def test_checkpoints(cli: Cli) -> None:
    """`checkpoint create` prints an id, `ls` and `show` tell of it, `restore --wait` goes on from there."""
    execution = begun(cli, "kept")
    made = cli("checkpoint", "create", execution, "--meta", "why=before the change", "--meta", "n=3").out.strip()
    assert made.startswith(f"{execution}.")
    assert made in cli("checkpoint", "ls", execution).out
    (listed,) = cli("checkpoint", "ls", execution, "--json").json
    assert (listed["id"], listed["metadata"]) == (made, {"why": "before the change", "n": 3})
    shown = cli("checkpoint", "show", made)
    assert "✓  first  completed" in shown.out
    assert cli("--json", "checkpoint", "show", made).json["state"]["completed_tasks"] == ["first"]
    cli.write(execution, "open")
    assert cli("watch", execution).code == 0
    done = cli("checkpoint", "restore", made, "--reason", "once more", "--wait")
    assert done.code == 0
    assert f"restored to checkpoint {made}, as run 2: once more" in done.out
    assert "first completed" not in done.out
    assert cli("checkpoint", "show", f"{execution}.9999").code == 3
    assert cli("checkpoint", "restore", f"{execution}.9999").code == 3
    assert cli("checkpoint", "show", execution).code == 2
    assert cli("checkpoint", "create", execution).code == 4


def test_start_says_when(cli: Cli) -> None:
    """`start` takes times, a preset and checkpoints; what cannot be is refused (2) before anything is sent."""
    done = cli(
        "start", "--task", "greet", "--input", '{"name": "x"}', "--execution-id", "later", "--delay", "1h", "--deadline", "2h"
    )
    assert done.code == 0
    assert cli("show", "later", "--json").json["current_phase"] == "scheduled"
    assert "pending (not due yet)" in cli("show", "later").out
    assert cli("cancel", "later").code == 0
    words = (
        "--task",
        "greet",
        "--input",
        '{"name": "x"}',
        "--checkpoint-every",
        "task",
        "--preset",
        "critical",
        "--wait",
        "--json",
    )
    assert len(cli("start", *words).json["checkpoints"]) == 1
    for wrong in (
        ("--start-at", "tomorrow"),
        ("--start-at", "2027-01-31T08:00:00"),
        ("--delay", "soon"),
        ("--preset", "bluk"),
        ("--checkpoint-every", "step"),
        ("--plan-id", "x"),
    ):
        assert cli("start", "--task", "greet", *wrong).code == 2


def test_run_ends_at_its_deadline(cli: Cli) -> None:
    """`run --deadline` fails what has not ended by then."""
    cli.write("hold.json", plan({"id": "hold", "task": "hold", "params": {"until": "never"}}))
    done = cli("run", "hold.json", *TASKS, "--deadline", "1s")
    assert done.code == 1
    assert "deadline exceeded" in done.out
