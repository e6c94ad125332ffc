"""`show --at | --version`, `diff`, `history --export`, `history import`, `verify --all`, `--actor`, as real processes."""

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.integration.cli import TASKS, Cli, plan

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]

GREETING = plan(
    {"id": "first", "task": "greet", "params": {"name": "x"}},
    {"id": "again", "task": "greet", "params": {"name": "${steps.first.output.greeting}"}},
)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A command line beside a running `esexec dev`, where `e1` has completed, started by ada."""
    cli = Cli(tmp_path_factory.mktemp("dev"))
    with cli.running("dev", *TASKS) as role:
        role.until("try in another terminal")
        started = cli("start", cli.write("plan.json", GREETING), "--execution-id", "e1", "--actor", "ada", "--wait")
        assert started.code == 0, started
        yield cli


def moments(cli: Cli) -> dict[int, datetime]:
    """When each version of `e1` was stored."""
    return {line["version"]: datetime.fromisoformat(line["time"]) for line in cli("history", "e1", "--json").lines}


def test_show_at_a_version(cli: Cli) -> None:
    """The same rendering, of the state after that event; what there never was is told (3), as is what is no version (2)."""
    then = cli("show", "e1", "--version", "1")
    assert then.out.startswith("execution  e1\n")
    assert "pending, 0 of 2 steps completed" in then.out
    assert "✓ completed" in cli("show", "e1").out
    assert cli("show", "e1", "--version", "1", "--json").json["completed_steps"] == 0
    assert "error [unknown_version]" in cli("show", "e1", "--version", "99").err
    assert (cli("show", "e1", "--version", "99").code, cli("show", "e1", "--version", "0").code) == (3, 2)
    assert cli("show", "e1", "--version", "1", "--at", "12:00:00").code == 2


def test_show_at_a_time(cli: Cli) -> None:
    """A time of day is one in the execution's life, in UTC, as its history has it; with a date and an offset it is any."""
    times = moments(cli)
    exactly = f"{times[1].isoformat()}"
    assert cli("show", "e1", "--at", exactly, "--json").json["completed_steps"] == 0
    of_day = f"{times[max(times)]:%H:%M:%S}"
    assert "✓ completed" in cli("show", "e1", "--at", of_day).out
    assert re.search(rf"^ *{max(times)}  {of_day}", cli("history", "e1").out, re.MULTILINE)
    before = f"{times[1] - timedelta(seconds=1):%Y-%m-%dT%H:%M:%S.%f}Z"
    done = cli("show", "e1", "--at", before)
    assert (done.code, done.err.splitlines()[0].partition(":")[0]) == (3, "error [not_yet]")
    for no_time in ("noon", "2027-01-31T08:00:00", "25:00:00"):
        assert "error [bad_time]" in cli("show", "e1", "--at", no_time).err


def test_diff_is_a_table(cli: Cli) -> None:
    """A line for each thing that is different, or as JSON; nothing is different between a version and itself."""
    last = max(moments(cli))
    lines = cli("diff", "e1", "1", str(last)).out.splitlines()
    assert lines[0].split() == ["version", "1", "version", str(last)]
    assert ["status", "pending", "completed"] in [line.split() for line in lines]
    changes = cli("diff", "e1", "1", str(last), "--json").json["changes"]
    assert {"what": "steps.first.output.greeting", "before": None, "after": "Hello, x!"} not in changes
    assert {"what": "steps.first.output", "before": None, "after": {"greeting": "Hello, x!"}} in changes
    assert cli("diff", "e1", "2", "2").out == "nothing is different\n"
    assert (cli("diff", "e1", "1", "99").code, cli("diff", "nobody", "1", "2").code, cli("diff", "e1", "1").code) == (3, 3, 2)


def test_a_history_goes_through_a_file(cli: Cli) -> None:
    """Exported, imported into a namespace of its own, and the same there; once more changes nothing; other content is refused."""
    done = cli("history", "e1", "--export", "f.jsonl")
    assert re.fullmatch(r"\d+ commits of e1 written to f.jsonl\n", done.out)
    lines = (cli.directory / "f.jsonl").read_text().splitlines()
    assert cli("history", "e1", "--export", "-").out.splitlines() == lines
    assert cli("history", "e1", "--export", "g.jsonl", "--json").json["commits"] == len(lines)
    scratch = ("--namespace", "scratch")
    assert f"{len(lines)} of {len(lines)} commits were new" in cli("history", "import", "f.jsonl", *scratch).out
    assert "it was there already" in cli("history", "import", "f.jsonl", *scratch).out
    assert cli("history", "import", "-", "--json", *scratch, stdin="\n".join(lines)).json == {
        "imported": [{"execution_id": "e1", "commits": len(lines), "written": 0}]
    }
    assert cli("history", "e1", *scratch).out == cli("history", "e1").out
    assert cli("show", "e1", *scratch).out == cli("show", "e1").out
    assert cli("verify", "e1", *scratch).code == 0
    assert cli("start", "--task", "greet", "--input", '{"name": "y"}', "--execution-id", "e2", "--wait").code == 0
    other = [json.loads(line) for line in cli("history", "e2", "--export", "-").out.splitlines()]
    cli.write("other.jsonl", "".join(json.dumps(line | {"execution_id": "e1"}, separators=(",", ":")) + "\n" for line in other))
    refused = cli("history", "import", "other.jsonl", *scratch)
    assert (refused.code, "error [corrupt_history]" in refused.err) == (6, True)
    cli.write("edited.jsonl", "\n".join(lines).replace("ada", "eve"))
    refused = cli("history", "import", "edited.jsonl", *scratch)
    assert (refused.code, "is not what was exported" in refused.err) == (6, True)
    for file, code in (("nowhere.jsonl", 2), ("plan.json", 2)):
        assert cli("history", "import", file, *scratch).code == code
    assert cli("history", "e1", "--export", "no/where.jsonl").code == 2


def test_another_execution_of_that_id_is_a_conflict(cli: Cli) -> None:
    """What runs here under the same id stays as it is (4)."""
    for namespace in ("one", "two"):
        with cli.running("dev", *TASKS, "--namespace", namespace) as role:
            role.until("try in another terminal")
            words = ("start", "--task", "greet", "--input", '{"name": "z"}', "--execution-id", "same", "--wait")
            assert cli(*words, "--namespace", namespace).code == 0
    cli("history", "same", "--export", "same.jsonl", "--namespace", "one")
    before = cli("history", "same", "--namespace", "two").out
    refused = cli("history", "import", "same.jsonl", "--namespace", "two")
    assert (refused.code, "error [conflict]" in refused.err) == (4, True)
    assert cli("history", "same", "--namespace", "two").out == before


def test_history_is_of_an_execution_where_no_verb_is_named(cli: Cli) -> None:
    """`history ID` and `history of ID` are the same, also for an execution that is called as a verb is."""
    assert cli("history", "of", "e1").out == cli("history", "e1").out
    assert "Missing argument" in cli("history").err
    done = cli("history", "of", "import")
    assert (done.code, "error [not_found]: no execution import" in done.err) == (3, True)
    for words in (("history", "--help"), ("history", "-h"), ("--help",)):
        assert "import" in cli(*words).out or words == ("--help",)


def test_verify_all_tells_one_line_and_no_bar(cli: Cli) -> None:
    """Into a pipe there is no progress, only what came of it; the document counts."""
    done = cli("verify", "--all")
    assert re.fullmatch(r"(\d+) of \1 histories verified \(\d+ commits, \d+ events\)\n", done.out)
    assert done.err == ""
    assert cli("verify", "--all", "--json").json["verified"] == int(done.out.split()[0])


def test_who_gave_a_command_is_shown(cli: Cli) -> None:
    """Given, else the environment, else whoever is at the keyboard: in the history, and in what is shown."""
    assert cli("start", "plan.json", "--delay", "1h", "--execution-id", "a1", "--actor", "ada").code == 0
    cli.environment["ESEXEC_ACTOR"] = "eve"
    assert cli("pause", "a1", "--reason", "lunch").code == 0
    assert cli("--actor", "bob", "resume", "a1").code == 0
    del cli.environment["ESEXEC_ACTOR"]
    cli.environment["LOGNAME"] = "grace"
    assert cli("cancel", "a1").code == 0
    history = cli("history", "a1").out
    for words in ("created by ada", "paused: lunch (by eve)", "resumed (by bob)", "cancel requested (by grace)"):
        assert words in history
    shown = cli("show", "a1").out
    assert re.search(r"^owner +ada$", shown, re.MULTILINE)
    assert re.search(r"^commands +\S+ \S+ UTC  execution paused: lunch \(by eve\)$", shown, re.MULTILINE)
    commands = cli("show", "a1", "--json").json["commands"]
    assert [(one["type"], one["actor"]) for one in commands] == [
        ("execution_created", "ada"),
        ("execution_paused", "eve"),
        ("execution_resumed", "bob"),
        ("execution_cancel_requested", "grace"),
    ]
    actors = {line["type"]: line["actor"] for line in cli("history", "a1", "--json").lines if line.get("actor")}
    assert actors["execution_paused"] == "eve"
    refused = cli("pause", "a1", "--actor", "a\nb")
    assert (refused.code, "error [bad_actor]" in refused.err) == (2, True)
