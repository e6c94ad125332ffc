"""`esexec stats`, as a real process: figures in words, by groups, as JSON, again and again; and its mistakes."""

import json

import pytest

from tests.integration.cli import TASKS, Cli, plan

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]

GREETING = plan({"id": "hello", "task": "greet", "params": {"name": "Ada"}}, {"id": "again", "task": "stumble"})


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A command line in a directory in which two executions completed and one failed, and nothing runs."""
    cli = Cli(tmp_path_factory.mktemp("stats"))
    name = cli.write("plan.yaml", GREETING)
    wrong = cli.write("wrong.yaml", plan({"id": "no", "task": "fail"}, name="wrong"))
    assert [cli("run", one, *TASKS).code for one in (name, name, wrong)] == [0, 0, 1]
    return cli


def test_it_tells_how_executions_went(cli: Cli) -> None:
    """How many, how they ended, what they failed of; by name a line each. Projections of its own catch up first."""
    done = cli("stats", "--by", "name")
    assert (done.code, done.err) == (0, "")
    for words in ("3: 2 completed, 1 failed", "66.7 %", "2 retries", "1 RUNTIME_ERROR"):
        assert words in done.out
    lines = {line.split()[0]: line.split()[1:4] for line in done.out.splitlines() if line.startswith(("trial", "wrong"))}
    assert lines == {"trial": ["2", "2", "0"], "wrong": ["1", "0", "1"]}


def test_it_tells_how_tasks_went(cli: Cli) -> None:
    """Of all steps, or of one task."""
    assert "5: 4 completed, 1 failed" in cli("stats", "--tasks").out
    stumbled = cli("stats", "--tasks", "--name", "stumble", "--json").json
    assert (stumbled["total"], stumbled["retries"], stumbled["average_retries"]) == (2, 2, 1.0)


def test_it_tells_of_a_window(cli: Cli) -> None:
    """Since so long ago, in full hours; what is not in it is not told."""
    lately = cli("stats", "--since", "10m", "--by", "hour", "--json").json
    assert lately["total"] == sum(group["total"] for group in lately["groups"].values()) == 3
    assert lately["since"].endswith(":00:00Z")
    before = cli("stats", "--until", "2020-01-01T00:00:00Z").out.splitlines()
    assert [line.split() for line in before] == [["created", "until", "2020-01-01", "00:00", "UTC"], ["executions", "0"]]
    assert cli("stats", "--name", "nobody's").out.split() == ["executions", "0"]


def test_it_looks_again(cli: Cli) -> None:
    """With --watch, until it is told to end; with --json a line each time."""
    with cli.running("stats", "--watch", "--json") as running:
        running.until('"total":3')
        running.until('"total":3')


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--by", "mood"), "usage"),
        (("--tasks", "--by", "plan"), "usage"),
        (("--tasks", "--plan", "x"), "usage"),
        (("--since", "yesterday"), "bad_time"),
        (("--since", "1h", "--until", "1d"), "bad_window"),
        (("--name", "x", "--plan", "0a" * 32), "bad_condition"),
        (("--name", "x", "--by", "name"), "bad_condition"),
        (("--plan", "85f9ca5df5ab"), "bad_plan_id"),
    ],
)
def test_mistakes_are_told(cli: Cli, words: tuple[str, ...], code: str) -> None:
    """With a code and a hint, exit code 2."""
    done = cli("stats", *words, "--json")
    assert (done.code, done.out) == (2, "")
    told = json.loads(done.err)["error"]
    assert told["code"] == code
    assert told["hint"]
