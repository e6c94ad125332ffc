"""The command line, verb by verb, as real processes: what it prints, in words and as JSON."""

import shlex
import signal
from collections.abc import Iterator

import pytest

from tests.integration.cli import TASKS, Cli, Running, plan

pytestmark = pytest.mark.xdist_group("cli")

GREETING = plan({"id": "hello", "task": "greet", "params": {"name": "${input.name}"}}, {"id": "again", "task": "stumble"})


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, Running]]:
    """`esexec dev` in one process, and a command line for others in the same directory."""
    cli = Cli(tmp_path_factory.mktemp("dev"))
    with cli.running("dev", *TASKS) as role:
        role.until("try in another terminal")
        yield cli, role


@pytest.fixture
def cli(dev: tuple[Cli, Running]) -> Cli:
    """A command line beside a running `esexec dev`."""
    return dev[0]


def test_run_tells_the_whole_tale(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`run` needs nothing but a plan and tasks; what it did can be shown, told and verified when it has ended."""
    cli = Cli(tmp_path_factory.mktemp("run"))
    cli.write("input.json", {"name": "Ada"})
    done = cli("run", cli.write("plan.yaml", GREETING), *TASKS, "--input", "@input.json")
    assert done.code == 0, done
    for words in (
        "hello completed",
        "again is tried again",
        "✓ completed",
        "2 of 2 steps completed, 1 retry",
        "history verified",
    ):
        assert words in done.out
    execution = done.out.split()[1]

    assert "completed" in cli("show", execution).out
    history = cli("history", execution)
    assert "again failed" in history.out
    assert "[RUNTIME_ERROR] not yet" in history.out
    assert "2 of 2 histories verified" in cli("verify", "--all").out  # the other holds what workers announced


def test_how_it_went_is_told_and_drawn(cli: Cli) -> None:
    """`analyze` tells the numbers, `timeline` draws where the time went; in words and as JSON, and not of what is not there."""
    cli.write("input.json", {"name": "Ada"})
    execution = cli("run", cli.write("plan.yaml", GREETING), *TASKS, "--input", "@input.json").out.split()[1]
    told = cli("analyze", execution)
    assert told.code == 0, told
    assert "errors        33.3 % (1 of 3 attempts)" in told.out
    assert "again is tried again" in told.out
    found = cli("analyze", execution, "--json").json
    assert found["metrics"]["attempts"] == 3 and found["metrics"]["success_rate"] == 1.0
    assert [entry["type"] for entry in found["timeline"]][-1] == "execution_completed"
    drawn = cli("timeline", execution)
    assert drawn.code == 0 and "again #2" in drawn.out and "█ runs" in drawn.out
    bars = cli("timeline", execution, "--json").json["bars"]
    assert [(bar["step"], bar.get("attempt", 1), bar["outcome"]) for bar in bars] == [
        ("hello", 1, "completed"),
        ("again", 1, "failed"),
        ("again", 2, "completed"),
    ]
    assert {cli(verb, "nobody").code for verb in ("analyze", "timeline")} == {3}


def test_run_gives_one_document(cli: Cli) -> None:
    """`run --json` prints one JSON document: the result and the verification; it shares the server that runs already."""
    name = cli.write("plan.json", GREETING)
    done = cli("run", name, *TASKS, "--input", "@-", "--json", stdin='{"name": "Ada"}')
    assert done.code == 0
    assert done.json["status"] == "completed"
    assert done.json["results"][0]["output"] == {"greeting": "Hello, Ada!"}
    assert done.json["verification"]["ok"] is True


def test_start_prints_the_id(cli: Cli) -> None:
    """`start` prints nothing but the id; the same idempotency key gives the same one, whatever the order of the options."""
    words = ("start", "--task", "greet", "--input", '{"name": "Ada"}', "--idempotency-key", "order-17")
    first, second = cli(*words), cli("--json", *words)
    assert (first.code, first.err) == (0, "")
    assert second.json == {"execution_id": first.out.strip(), "duplicate": True}


def test_start_waits_if_told(cli: Cli) -> None:
    """`start --wait` follows the execution, shows its result and exits by its outcome."""
    done = cli("start", "--task", "greet", "--input", '{"name": "Ada"}', "--wait", "--priority", "9")
    assert done.code == 0
    assert "Hello, Ada!" in done.out
    done = cli("start", "--task", "greet", "--input", '{"name": "Ada"}', "--wait", "--json")
    assert done.json["result"] == {"greeting": "Hello, Ada!"}


def test_watch_sees_a_cancel(cli: Cli) -> None:
    """`watch` follows from the beginning to the end; `cancel` ends what runs, once and for all."""
    cli("start", "--task", "hold", "--input", '{"until": "never"}', "--execution-id", "long")
    with cli.running("watch", "long") as watch:
        watch.until("hold started")
        assert cli("cancel", "long", "--reason", "enough").code == 0
        seen = watch.ended()
    assert seen.code == 1
    assert "cancel requested: enough" in seen.out
    assert "– cancelled" in seen.out
    assert cli("cancel", "long").code == 0
    updates = cli("watch", "long", "--json").lines
    assert updates[-1]["status"] == "cancelled"


def test_history_has_a_line_per_event(cli: Cli) -> None:
    """`history --json` prints a line per event, gapless, with all that the event holds."""
    cli("start", "--task", "greet", "--input", '{"name": "Ada"}', "--execution-id", "told", "--wait")
    entries = cli("history", "told", "--json").lines
    assert [entry["version"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[0]["type"] == "execution_created"
    assert entries[0]["event"]["input"] == {"name": "Ada"}
    assert entries[-1]["description"] == "execution completed"


def test_show_gives_everything_known(cli: Cli) -> None:
    """`show --json` prints the result with its steps; `show` exits 0 whatever came of the execution."""
    cli("start", "--task", "fail", "--execution-id", "failed", "--wait")
    assert cli("show", "failed").code == 0
    shown = cli("show", "failed", "--json").json
    assert shown["status"] == "failed"
    assert shown["results"][0]["error"]["code"] == "RUNTIME_ERROR"
    assert "Traceback" in shown["error"]["stack"]


def test_verify_finds_what_is_intact(cli: Cli) -> None:
    """`verify` of an intact history says so and exits 0, for one and for all."""
    cli("start", "--task", "greet", "--input", '{"name": "Ada"}', "--execution-id", "intact", "--wait")
    assert cli("verify", "intact").out.startswith("history verified (")
    assert cli("verify", "intact", "--json").json["ok"] is True
    assert cli("verify", "--all", "--json").json["ok"] is True


@pytest.mark.slow
def test_terminals_are_safe(cli: Cli) -> None:
    """Whatever handlers say, no control character of theirs is printed, in words or as JSON, which stays JSON."""
    for task in ("fail", "hostile"):
        cli("start", "--task", task, "--execution-id", f"unsafe-{task}", "--wait")
        for verb in ("show", "history", "watch"):
            for options in ((), ("--json",)):
                done = cli(verb, f"unsafe-{task}", *options)
                assert all(char.isprintable() or char == "\n" for char in done.out)
                assert "[bold]red[/bold]" in done.out or verb == "history"
    assert "\\u001b" in cli("show", "unsafe-hostile").out


def test_version_and_help(cli: Cli) -> None:
    """`--version` and `--help` work without a server; the help lists the exit codes; no verb at all is wrong usage."""
    assert cli("--version").out.startswith("esexec ")
    shown = cli("--help")
    assert shown.code == 0
    assert "a history is not intact" in shown.out
    assert cli().code == 2


def test_a_run_can_be_interrupted_and_gone_on_with(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ctrl-C drains `run` and exits 130; what is advised then, word by word, goes on where it was."""
    cli = Cli(tmp_path_factory.mktemp("interrupted"))
    first, second = {"id": "first", "task": "greet", "params": {"name": "x"}}, {"id": "second", "task": "hold"}
    name = cli.write("plan.json", plan(first, second | {"params": {"until": "gate"}}))
    with cli.running("run", name, *TASKS, "--execution-id", "resumed", "--store", "else where", "--preset", "critical") as run:
        run.until("second started")
        run.process.send_signal(signal.SIGINT)
        run.until("draining…")
        cli.write("gate", "open")
        interrupted = run.ended()
    assert interrupted.code == 130
    advised = next(line for line in interrupted.out.splitlines() if line.startswith("not ended")).partition(": esexec ")[2]
    assert advised == "--store 'else where' run plan.json --tasks tests.cli_tasks --preset critical --execution-id resumed"
    resumed = cli(*shlex.split(advised), "--json")
    assert resumed.code == 0
    assert resumed.json["verification"]["ok"] is True
    told = cli("history", "resumed", "--store", "else where", "--json")
    assert told.lines[-1]["type"] == "execution_completed"
