"""`esexec plan`, `list`, `config` and what the shell offers: run in this process, for nothing of it needs one of its own."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from esexec import Client, Executor, Worker, task
from esexec.cli.app import app
from tests.server import NatsServer

ROOT = Path(__file__).parents[2]
Esexec = Callable[..., Result]

BAD = """\
name: orders
stepps: 3
config:
  max_retries: -1
steps:
  - id: fetch it
    task: fetch
  - id: b
    task: load
    dependson: [fetch]
    depends_on: [fetch it, nope]
    params:
      a: "x ${steps.nowhere.output} and ${steps.b.output}"
      list: ["${steps.other.output}"]
  - task: c
    id: b
    timeout: 5 parsecs
  - id: d
    depends_on: [e]
  - id: e
    task: "no good name"
    depends_on: [d]
  - 7
"""
TASKS = '''
import esexec

@esexec.task
async def greet(name: str) -> str:
    """Says hello."""
    return name

flow = esexec.Plan("flow", [esexec.Step(greet), esexec.Step("greet", id="again", depends_on="greet", fallback="greet")])
'''


@pytest.fixture
def esexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Esexec:
    """The command line in a directory of its own, with nothing said in the environment; output as into a pipe."""
    for name in [*os.environ]:
        if name.startswith(("NATS_", "ESEXEC_", "XDG_")) or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int = 0, **environment: str) -> Result:
        result = CliRunner().invoke(app, words, env=environment, prog_name="esexec")
        assert result.exit_code == code, result.output
        return result

    return call


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


# plan check --------------------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_is_told_at_once(esexec: Esexec) -> None:
    """Each problem of a file with its line and column; a cycle, gaps and what follows from a bad id are no noise."""
    [said] = json.loads(esexec("plan", "check", write("bad.yaml", BAD), "--json", code=2).stdout)
    assert said["ok"] is False
    assert [(one["line"], one["column"], one["code"]) for one in said["found"]] == [
        (2, 1, "unknown_key"),
        (4, 16, "invalid_value"),
        (6, 9, "bad_step_id"),
        (10, 5, "unknown_key"),
        (11, 28, "unknown_dependency"),
        (13, 10, "unknown_reference"),
        (13, 10, "self_reference"),
        (14, 14, "unknown_reference"),
        (16, 9, "duplicate_step"),
        (17, 14, "invalid_duration"),
        (18, 5, "missing"),
        (19, 17, "cycle"),
        (21, 11, "bad_task_name"),
        (23, 5, "invalid_value"),
    ]
    assert "made-up" not in json.dumps(said)


def test_a_problem_stands_under_a_caret(esexec: Esexec) -> None:
    """In words: place, code, the line, carets under what is meant, and a hint."""
    out = esexec("plan", "check", write("bad.yaml", "name: a\nsteps:\n  - task: x\n    dependson: [y]\n"), code=2).stdout
    assert out.splitlines() == [
        "bad.yaml:4:5: problem [unknown_key] steps[0].dependson: unknown key",
        "    4 |     dependson: [y]",
        "      |     ^^^^^^^^^",
        "  hint: did you mean `depends_on`?",
        "bad.yaml: 1 problem, 0 warnings",
    ]


@pytest.mark.parametrize(
    ("name", "text", "code", "line"),
    [
        ("a.yaml", "name: [\n", "bad_yaml", 2),
        ("a.json", '{"name": "a",\n "steps": [}', "bad_json", 2),
        ("a.json", '{"name": "a",\n "steps": [{"task": "t", "id": "é"}]}', "bad_step_id", 2),
        ("a.yaml", "7", "invalid_value", None),
        ("a.yaml", "", "invalid_value", None),
    ],
)
def test_what_is_no_plan_at_all(esexec: Esexec, name: str, text: str, code: str, line: int | None) -> None:
    """A file that cannot be read as YAML or JSON, or holds something else: one problem, with its line where there is one."""
    [said] = json.loads(esexec("plan", "check", write(name, text), "--json", code=2).stdout)
    assert [(one["code"], one.get("line")) for one in said["found"]] == [(code, line)]


def test_several_at_once_and_plans_of_python(esexec: Esexec) -> None:
    """Files and modules together; the exit code is that of the worst, and --strict takes warnings seriously."""
    good = write("good.json", '{"name": "good", "steps": [{"task": "greet"}]}')
    write("tasks.py", TASKS)
    assert esexec("plan", "check", good, "tasks.py:flow").stdout.splitlines()[0] == "good.json: ok, 1 step"
    said = json.loads(esexec("plan", "check", good, "tasks.py", "bad.yaml", "--json", code=2).stdout)
    assert [(one["plan"], one["ok"]) for one in said] == [("good.json", True), ("tasks.py:flow", True), ("bad.yaml", False)]
    assert said[2]["found"][0]["code"] == "file_unreadable"
    assert said[1]["found"][0]["code"] == "fallback_is_the_task"
    assert "warning [fallback_is_the_task]" in esexec("plan", "check", "tasks.py", "--strict", code=2).stdout


def test_tasks_that_do_not_exist(esexec: Esexec) -> None:
    """Where tasks are named, by --tasks or in the settings, one that is not there is a problem with a suggestion."""
    plan = write("plan.yaml", "name: a\nsteps:\n  - task: greet\n  - task: gret\n")
    write("tasks.py", TASKS)
    assert esexec("plan", "check", plan).exit_code == 0
    for words in (("--tasks", "tasks.py"), ()):
        out = esexec("plan", "check", plan, *words, code=2).stdout
        assert "plan.yaml:4:11: problem [unknown_task] steps[1].task: there is no task `gret`" in out
        assert "did you mean `greet`?" in out
        write("esexec.toml", 'tasks = ["tasks.py"]\n')


def test_params_that_tasks_do_not_take(esexec: Esexec) -> None:
    """Where tasks are named, each step of which a start would be refused is told, with its place; what refers is left to it.
    Not where something else is wrong, which may be why they do not fit."""
    steps = [
        "{a: 1}",
        "{name: 5}",
        "{name: Ada, nme: Bob}",
        "{name: Ada}",
        '{name: "${input.x}"}',
        '"${input}"',
        '{name: "${steps.greet.output}"}',
    ]
    text = "name: a\nsteps:\n" + "".join(f"  - {{task: greet, params: {params}}}\n" for params in steps)
    plan = write("plan.yaml", text)
    write("tasks.py", "import esexec\n@esexec.task\nasync def greet(name: str) -> str: return name\n")
    assert esexec("plan", "check", plan).exit_code == 0
    [said] = json.loads(esexec("plan", "check", plan, "--tasks", "tasks.py", "--json", code=2).stdout)
    assert [(one["code"], one["line"], one["column"], one["path"]) for one in said["found"]] == [
        ("invalid_params", 3, 27, "steps[0].params"),
        ("invalid_params", 4, 34, "steps[1].params.name"),
        ("invalid_params", 5, 27, "steps[2].params"),
    ]
    assert said["found"][0]["message"] == "task `greet`: unexpected parameter `a`; missing parameter `name`"
    write("plan.yaml", "name: a\nsteps: [{task: greet, params: {name: 5, other: '${steps.no.output}'}}]")
    [said] = json.loads(esexec("plan", "check", plan, "--tasks", "tasks.py", "--json", code=2).stdout)
    assert [one["code"] for one in said["found"]] == ["unknown_reference"]
    made = "import esexec\nplan = esexec.Plan('a', [esexec.Step('greet', params={'nme': 'Ada'})])"
    out = esexec("plan", "check", write("made.py", made), "--tasks", "tasks.py", code=2).stdout
    assert "problem [invalid_params] steps[0].params: task `greet`: unexpected parameter `nme`" in out


def test_no_traceback_for_python_that_is_broken(esexec: Esexec) -> None:
    """A module that does not import, has no plan, or makes one that cannot be: told, not thrown."""
    write("broken.py", "raise RuntimeError('no')")
    write("empty.py", "x = 1")
    write("wrong.py", "import esexec\nplan = esexec.Plan('a', [])")
    assert "[plan_broken]" in esexec("plan", "check", "broken.py", code=2).stderr
    assert "[plan_not_found]" in esexec("plan", "check", "empty.py", code=2).stderr
    assert "[plan_not_found]" in esexec("plan", "check", "empty.py:x", code=2).stderr
    assert "[empty_plan]" in esexec("plan", "check", "wrong.py", code=2).stdout
    for place, what in {".": "a directory", "": "no name of a module", "a b": "no name of a module"}.items():
        assert f"[plan_not_found]: `{place}` is {what}" in esexec("plan", "check", place, code=2).stderr


# plan show ---------------------------------------------------------------------------------------------------------------


def test_a_plan_is_drawn(esexec: Esexec) -> None:
    """Levels, who overlaps, who waits for whom, what takes its place and undoes it, settings."""
    plan = write(
        "plan.yaml",
        "name: shop\nconfig: {max_retries: 7}\nsteps:\n  - {id: a, task: t.a, compensate: t.undo}\n"
        "  - {id: b, task: t.b, depends_on: [a], parallel: true, timeout: 5s}\n"
        '  - {id: c, task: t.c, params: {x: "${steps.a.output}"}, fallback: t.other}\n  - {id: d, task: d, depends_on: [b, c]}\n',
    )
    lines = esexec("plan", "show", plan).stdout.splitlines()
    assert lines[0].startswith("shop  4 steps, 3 levels  ")
    assert lines[1] == "max_retries=7"
    assert [" ".join(line.split()) for line in lines[3:]] == [
        "1 ─ a t.a undone by t.undo",
        "2 ┬ ∥ b t.b after a; timeout_ms=5000",
        "└ c t.c after a; else t.other",
        "3 ─ d after b, c",
        "∥ may overlap with others; all else runs one at a time",
    ]
    assert json.loads(esexec("plan", "show", plan, "--json").stdout)["name"] == "shop"


def test_a_plan_as_mermaid(esexec: Esexec) -> None:
    """A flowchart, whatever stands in names; nothing in it breaks out of its label."""
    plan = write("plan.json", json.dumps({"name": 'a "b" <c>', "steps": [{"id": "x", "task": "t", "compensate": "u"}, "y"][:1]}))
    assert esexec("plan", "show", plan, "--mermaid").stdout.splitlines() == [
        "---",
        'title: "a #quot;b#quot; #lt;c#gt;"',
        "---",
        "flowchart TD",
        '    s0["x<br/>t"]',
        '    c0["u"]',
        "    s0 -. undone by .-> c0",
    ]


def test_a_long_chain_is_drawn(esexec: Esexec) -> None:
    """Thousands of levels: no recursion, a line per step."""
    steps = [{"id": f"s{n}", "task": "t", "depends_on": [f"s{n - 1}"] if n else []} for n in range(3_000)]
    out = esexec("plan", "show", write("big.json", json.dumps({"name": "big", "steps": steps}))).stdout
    assert "3000 steps, 3000 levels" in out
    assert len(out.splitlines()) == 3_002


# list, config, completion --------------------------------------------------------------------------------------------------


def test_what_can_be_run_here_is_listed(esexec: Esexec) -> None:
    """Plans and tasks of modules, files and directories; a broken plan file with what is wrong; a server is not needed."""
    write("tasks.py", TASKS)
    write("plans/good.yaml", "name: good\nsteps: [{task: greet}]\n")
    write("plans/other.yaml", "key: value\n")
    write("bad.yaml", "name: bad\n")
    found = json.loads(esexec("list", "tasks.py", "plans", "bad.yaml", "--json").stdout)
    told = {(one["kind"], one["name"]): one for one in found}
    assert set(told) == {("task", "greet"), ("plan", "flow"), ("plan", "good"), ("plan", "bad")}
    assert told["task", "greet"]["about"] == "(name) Says hello."
    assert "steps" in told["plan", "bad"]["problem"]
    assert "esexec ls" in esexec("list", "--help").stdout
    assert "esexec list" in esexec("ls", "--help").stdout
    assert json.loads(esexec("list", "tasks.py", "--tasks", "--json").stdout)[0]["kind"] == "task"


def test_what_the_namespace_keeps_is_listed(esexec: Esexec, nats_server: NatsServer, namespace: str) -> None:
    """Plans that are kept; without a server it is a note where there is something else to tell, else an error."""
    where = ("--server", nats_server.url, "--namespace", namespace)
    assert "nothing can be run" in esexec("list", *where).stdout
    write("tasks.py", TASKS)
    gone = ("--server", "nats://127.0.0.1:1")
    assert "the namespace is not told" in esexec("list", "tasks.py", *gone).stderr
    assert esexec("list", *gone, code=5).stdout == ""


def test_config_tells_every_setting_and_its_origin(esexec: Esexec) -> None:
    """Values without secrets, and who said them: an argument, a variable, a line of a file, a context, the default."""
    write("pyproject.toml", '[project]\nname = "x"\n[tool.esexec]\nnamespace = "shop"\n')
    write(".config/nats/context/site.json", json.dumps({"url": "nats://site", "token": "secret"}))
    words = ("config", "show", "--origin", "--context", "site", "--json")
    said = {one["key"]: one for one in json.loads(esexec(*words, ESEXEC_ACTOR="ada").stdout)}
    assert said["server"] == {"key": "server", "value": "nats://site", "origin": "context site"}
    assert said["token"] == {"key": "token", "value": "***", "origin": "context site"}
    assert said["actor"]["origin"] == "$ESEXEC_ACTOR"
    assert said["namespace"]["origin"] == "pyproject.toml:4"
    assert said["context"]["origin"] == "argument"
    assert said["store"]["origin"] == "default"
    shown = esexec("config", "show", "--origin").stdout
    assert "the embedded one on .esexec" in shown
    assert "secret" not in shown


def test_who_named_a_server_that_does_not_answer(esexec: Esexec) -> None:
    """Where it was not said with the command, it is told who did: one may have forgotten."""
    write(".config/nats/context/site.json", json.dumps({"url": "nats://127.0.0.1:1"}))
    write(".config/nats/context.txt", "site")
    assert esexec("ls", code=5).stderr.splitlines()[-1] == "note: that server is named by context site"
    assert "named by" not in esexec("ls", "--server", "nats://127.0.0.1:1", code=5).stderr


def test_a_bad_setting_ends_every_verb(esexec: Esexec) -> None:
    """A wrong file is told with its line before anything else is done, as JSON too."""
    write("esexec.toml", "namspace = 'x'\n")
    result = esexec("ls", "--json", code=2)
    assert json.loads(result.stderr)["error"]["code"] == "unknown_setting"


def completed(esexec: Esexec, *words: str) -> list[str]:
    """What the shell is offered behind these words."""
    line = ["esexec", *words]
    environment = {"COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1), "_ESEXEC_COMPLETE": "complete_bash"}
    return esexec(**environment).stdout.split()


def test_the_shell_offers_what_there_is(esexec: Esexec, nats_server: NatsServer, namespace: str) -> None:
    """Verbs, contexts and namespaces; and nothing, without a word, where no server answers."""
    assert completed(esexec, "doc") == ["doctor"]
    assert completed(esexec, "plan", "ch") == ["check"]
    write(".config/nats/context/site.json", "{}")
    assert completed(esexec, "ls", "--context", "s") == ["site"]
    assert completed(esexec, "show", "--server", "nats://127.0.0.1:1", "e") == []
    assert completed(esexec, "show", "e") == []

    async def start() -> None:
        url = nats_server.url
        async with Executor(url, namespace=namespace), Client(url, namespace=namespace) as client:
            await client.start("greet", {"name": "Ada"}, execution_id="order-7")
            kept = await client.plans.put({"name": "kept", "steps": [{"task": "greet"}]})
            plan_ids.append(kept.plan_id)
            async with Worker(url, namespace=namespace, tasks=[task(name="greet-all")(print_it)]):
                offered.append(await asyncio.to_thread(completed, esexec, "start", *where, "--task", "gr"))

    plan_ids: list[str] = []
    offered: list[list[str]] = []
    where = ("--server", nats_server.url, "--namespace", namespace)
    asyncio.run(start())
    assert offered == [["greet-all"]]
    assert completed(esexec, "show", *where, "or") == ["order-7"]
    assert completed(esexec, *where, "history", "order-7") == ["order-7"]
    assert completed(esexec, *where, "start", "--plan-id", plan_ids[0][:4]) == plan_ids
    assert namespace in completed(esexec, *where[:2], "ls", "--namespace", namespace[:5])
    assert not Path(".esexec").exists()


async def print_it(name: str) -> None:
    """A task."""


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TERM", "xterm-256color")


def test_colours_are_as_was_asked(esexec: Esexec, no_terminal: None) -> None:
    """Into a pipe there are none, unless FORCE_COLOR says so; NO_COLOR wins over it, and lines are as long as they are."""
    plan = str(ROOT / "examples/logistics/plan.yaml")
    plain = esexec("plan", "show", plan).stdout
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) > 100
    assert "\x1b[" in esexec("plan", "show", plan, FORCE_COLOR="1").stdout
    none = esexec("plan", "show", plan, FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\x1b[3" not in none
    assert "\x1b[9" not in none
