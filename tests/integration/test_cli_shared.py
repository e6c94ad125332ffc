"""`esexec plans`, `strategies` and `configure`, as real processes: what they print, in words and as JSON, and how they exit."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli import TASKS, Cli, plan

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]

GREETING = plan(
    {"id": "hello", "task": "greet", "params": {"name": "${input.name}"}},
    {"id": "then", "task": "greet", "params": {"name": "Eve"}, "depends_on": ["hello"]},
)
STRATEGIES = """
from esexec.tasks.recovery import RecoveryAction, RecoveryResult, RecoveryStrategy

class Patient(RecoveryStrategy):
    id = "patient"
    applicable_errors = ("NETWORK_*", "HTTP_503")

    async def execute(self, ctx):
        return RecoveryResult(True, RecoveryAction.RETRY)

patient = Patient()
"""
NOWHERE = "0" * 64


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A command line beside a running `esexec dev`."""
    cli = Cli(tmp_path_factory.mktemp("shared"))
    with cli.running("dev", *TASKS) as role:
        role.until("try in another terminal")
        yield cli


def test_a_plan_is_put_and_started_by_its_id(cli: Cli) -> None:
    """`plans put` prints the id, `get` and `ls` show it, `start --plan-id` runs it, `archive` ends that."""
    done = cli("plans", "put", cli.write("plan.yaml", GREETING))
    assert (done.code, done.err) == (0, "")
    plan_id = done.out.strip()
    shown = cli("plans", "get", plan_id)
    assert shown.code == 0
    for words in ("trial", plan_id, "ready", "after hello"):
        assert words in shown.out
    assert cli("plans", "get", plan_id, "--json").json["document"]["steps"][1]["depends_on"] == ["hello"]
    assert f"{plan_id}  ready" in cli("plans", "ls").out
    started = cli("start", "--plan-id", plan_id, "--input", '{"name": "Ada"}', "--execution-id", "by-id")
    assert (started.code, started.out) == (0, "by-id\n")
    assert cli("plans", "archive", plan_id).out == "archived\n"
    assert cli("plans", "archive", plan_id, "--json").json == {"plan_id": plan_id, "archived": False}
    refused = cli("start", "--plan-id", plan_id)
    assert (refused.code, refused.err.split(":")[0]) == (4, "error [plan_not_ready]")


def test_a_draft_waits(cli: Cli) -> None:
    """`put --draft` keeps it; it cannot be started before it is put without that."""
    name = cli.write("draft.yaml", {**GREETING, "name": "draft"})
    kept = cli("plans", "put", name, "--draft", "--json").json
    assert kept["status"] == "draft"
    assert cli("start", "--plan-id", kept["plan_id"]).code == 4
    assert [one["name"] for one in cli("plans", "ls", "--status", "draft", "--json").json] == ["draft"]
    assert cli("plans", "put", name).code == 0
    assert cli("plans", "ls", "--status", "draft", "--json").json == []


def test_an_invalid_plan_is_kept_and_told(cli: Cli) -> None:
    """Its id on stdout, what is wrong with it, file and line, on stderr: exit 2. What is no plan at all is not kept."""
    cli.write("wrong.yaml", "name: wrong\nsteps:\n  - {id: a, task: greet, dependson: []}\n")
    done = cli("plans", "put", "wrong.yaml")
    assert done.code == 2
    assert done.err.startswith("error [unknown_key]: wrong.yaml:3: steps[0].dependson")
    shown = cli("plans", "get", done.out.strip())
    assert "invalid" in shown.out
    assert "error [unknown_key]" in shown.out
    cli.write("list.yaml", "- a\n- b\n")
    done = cli("plans", "put", "list.yaml")
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("plans", "get", NOWHERE), 3, "unknown_plan"),
        (("plans", "archive", NOWHERE), 3, "unknown_plan"),
        (("plans", "put", "nowhere.yaml"), 2, "file_unreadable"),
        (("plans", "ls", "--status", "lost"), 2, "bad_plan_status"),
        (("start", "--plan-id", NOWHERE), 3, "unknown_plan"),
        (("strategies", "rm", "nobody"), 3, "unknown_strategy"),
        (("strategies", "rm", "no no"), 2, "bad_strategy_id"),
        (("configure", "queues.slow.queue=fast"), 2, "unknown_key"),
        (("strategies", "add", "no.such.module:x"), 2, "tasks_not_found"),
        (("strategies", "add", "broken.py"), 2, "tasks_broken"),
        (("strategies", "add", "empty.py"), 2, "strategies_not_found"),
        (("configure",), 2, "usage"),
        (("configure", "max_retries"), 2, "usage"),
        (("configure", "max_retries=5", "max_retries=6"), 2, "usage"),
        (("configure", "max_retires=5"), 2, "unknown_key"),
        (("configure", "max_retries=-1"), 2, "invalid_value"),
        (("configure", "--preset", "sloppy"), 2, "unknown_preset"),
    ],
)
def test_mistakes_have_their_exit_codes(cli: Cli, words: tuple[str, ...], code: int, name: str) -> None:
    """One line with a code, and with --json one object."""
    cli.write("broken.py", "1 / 0\n")
    cli.write("empty.py", "")
    done = cli(*words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error [{name}]: ")
    told = json.loads(cli(*words, "--json").err)["error"]
    assert (told["code"], told["exit_code"]) == (name, code)


def test_strategies_come_and_go(cli: Cli) -> None:
    """`strategies add` takes a module or one of it and prints the ids; `ls` shows them in their order; `rm` removes."""
    cli.write("patience.py", STRATEGIES)
    assert cli("strategies", "add", "patience:patient").out == "patient\n"
    assert cli("strategies", "add", "patience.py", "--json").json == {"added": ["patient"]}
    listed = cli("strategies", "ls")
    assert "NETWORK_*, HTTP_503" in listed.out
    assert "at most 30.0 s" in listed.out
    assert [one["id"] for one in cli("strategies", "ls", "--json").json] == ["patient"]
    assert cli("strategies", "ls", "--json").json[0]["timeout_ms"] == 30_000
    assert cli("strategies", "rm", "patient").out == "removed\n"
    assert cli("strategies", "ls", "--json").json == []
    assert cli("strategies", "ls").out == "no strategies\n"
    assert cli("plans", "ls", "--namespace", "fresh").out == "no plans\n"


def test_the_namespace_is_configured(cli: Cli) -> None:
    """`configure` takes settings as the plan file does, and presets; what is not given stays; `--show` tells what holds."""
    assert "nothing is configured" in cli("configure", "--show", "--namespace", "fresh").out
    assert cli("configure", "max_retries=7", "timeout=45s").out == "configured\n"
    config = cli("configure", "--preset", "bulk", "maxRetries=9", "--json").json["config"]
    assert (config["max_retries"], config["timeout_ms"], config["continue_on_error"]) == (9, 45_000, True)
    shown = cli("configure", "--show")
    assert "timeout_ms" in shown.out
    assert "45,000" in shown.out


def test_settings_of_a_queue_come_and_go(cli: Cli) -> None:
    """F126: `queues.NAME.KEY=VALUE` leaves the rest; nothing behind the = takes back."""

    def queues_after(*settings: str) -> object:
        return cli("configure", *settings, "--json").json["config"].get("queues")

    slow = {"timeout_ms": 600_000, "max_retries": 9}
    assert queues_after("queues.slow.timeout=10m", "queues.slow.max_retries=9") == {"slow": slow}
    both = {"slow": {"timeout_ms": 600_000}, "fast": {"timeout_ms": 1_000}}
    assert queues_after("queues.fast.timeout=1s", "queues.slow.max_retries=") == both
    assert queues_after("queues.fast=") == {"slow": {"timeout_ms": 600_000}}
    assert queues_after("queues=", "jitter=0.5") is None
    assert "jitter" not in cli("configure", "jitter=", "--json").json["config"]


@pytest.mark.parametrize("group", ["plans", "strategies", "checkpoint"])
def test_a_group_alone_shows_its_help_once(cli: Cli, group: str) -> None:
    """And it is wrong usage."""
    done = cli(group)
    assert (done.code, done.out.count("Usage:")) == (2, 1)


def test_what_is_probably_not_meant_is_noted(cli: Cli) -> None:
    """C24: on stderr, where a plan is put and where it is started, and not with --json; the verb does what it does."""
    both = plan(
        {"id": "hello", "task": "greet", "params": {"name": "Ada"}, "fallback": "greet"},
        config={"continue_on_error": True, "enable_rollback": True},
    )
    name = cli.write("both.yaml", both)
    for words in (("plans", "put", name), ("start", name)):
        done = cli(*words)
        assert done.code == 0
        assert "note [rollback_with_continue_on_error]: " in done.err
        assert "note [fallback_is_the_task]: step `hello`" in done.err
        assert cli(*words, "--json").err == ""


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    """Without a store there is nothing to list: exit 3, and no store afterwards."""
    cli = Cli(tmp_path)
    for words in (("plans", "ls"), ("plans", "get", NOWHERE), ("strategies", "ls"), ("configure", "--show")):
        assert cli(*words).code == 3
    assert not (tmp_path / ".esexec").exists()


def test_a_store_of_ones_own_is_enough(tmp_path: Path) -> None:
    """Without `dev` each verb brings an executor along: what one keeps the next finds."""
    cli = Cli(tmp_path)
    plan_id = cli("plans", "put", cli.write("plan.yaml", GREETING)).out.strip()
    assert cli("configure", "max_retries=1").code == 0
    assert cli("plans", "ls", "--json").json[0]["plan_id"] == plan_id
    assert cli("configure", "--show", "--json").json == {"config": {"max_retries": 1}}
    assert cli("verify", "--all").code == 0


def test_what_executions_share_has_a_history(cli: Cli) -> None:
    """`history` tells it as it tells that of an execution, and `verify` vouches for it."""
    assert cli("configure", "max_retries=4").code == 0
    assert "namespace configured" in cli("history", "_settings").out
    assert "verified" in cli("verify", "_settings").out
    assert cli("show", "_settings").err.startswith("error [bad_execution_id]")
