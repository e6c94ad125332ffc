"""The exit codes: what each mistake is answered with. One line and a hint, or one JSON object; never a traceback."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from esexec.nats.connection import connect
from tests.integration.cli import COMMAND, TASKS, Cli, plan
from tests.server import NatsServer

pytestmark = pytest.mark.slow

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_unknown_keys_get_a_suggestion(cli: Cli) -> None:
    """A plan with a misspelt key is refused with file, line and the word that was probably meant: exit 2."""
    cli.write("plan.yaml", "name: trial\nsteps:\n  - {id: a, task: greet, dependson: []}\n")
    done = cli("run", "plan.yaml", *TASKS)
    assert done.code == 2
    assert done.err.splitlines() == [
        "error [unknown_key]: plan.yaml:3: steps[0].dependson: unknown key",
        "hint: did you mean `depends_on`?",
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "nowhere.yaml", *TASKS), "file_unreadable"),
        (("run", "plan.json", "--tasks", "no.such.module"), "tasks_not_found"),
        (("run", "plan.json", "--tasks", "broken.py"), "tasks_broken"),
        (("run", "unknown.json", *TASKS), "unknown_task"),
        (("run", "plan.json", *TASKS, "--input", "{nope"), "bad_input"),
        (("run", "plan.json", *TASKS, "--input", "@nowhere.json"), "bad_input"),
        (("worker", *TASKS, "--queue", "a=0"), "bad_queue"),
        (("start",), "usage"),
        (("verify",), "usage"),
        (("show",), "usage"),
        (("sohw", "x"), "usage"),
        (("start", "--task", "greet", "--priority", "11"), "usage"),
        (("show", "x", "--namespace", "a.b", "--server", NOWHERE), "namespace_invalid"),
    ],
)
def test_mistakes_exit_2(cli: Cli, words: tuple[str, ...], code: str) -> None:
    """Whatever is wrong with the call is told by its code before any server is asked."""
    cli.write("plan.json", plan({"id": "a", "task": "greet", "params": {"name": "x"}}))
    cli.write("unknown.json", plan({"id": "a", "task": "great"}))
    cli.write("broken.py", "1 / 0\n")
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error [{code}]: ")
    assert not (cli.directory / ".esexec").exists()


def test_a_failed_execution_exits_1(cli: Cli) -> None:
    """`run` of a plan that fails tells the error, its step and where it was raised, verifies all the same, and exits 1."""
    cli.write("plan.json", plan({"id": "a", "task": "fail", "params": {"message": "no luck"}}, {"id": "b", "task": "hostile"}))
    done = cli("run", "plan.json", *TASKS)
    assert done.code == 1
    assert "error [RUNTIME_ERROR]: no luck" in done.out
    assert "in step a, attempt 1" in done.out
    assert "cli_tasks.py:" in done.out
    assert "b skipped: a failed" in done.out
    assert "history verified" in done.out


def test_what_is_not_there_exits_3(cli: Cli, nats_server: NatsServer, namespace: str) -> None:
    """An unknown id is not found, and neither is a store without histories, which is not made by looking."""
    for words in (("show", "x"), ("history", "x"), ("watch", "x"), ("verify", "x"), ("verify", "--all")):
        done = cli(*words)
        assert done.code == 3
        assert "error [no_store]" in done.err
    assert not (cli.directory / ".esexec").exists()
    named = Cli(cli.directory, nats_server.url)
    for verb in ("show", "history", "watch", "verify"):
        done = named(verb, "x", "--namespace", namespace, "--json")
        assert done.code == 3
        assert json.loads(done.err)["error"]["code"] == "not_found"
        done = named(verb, "x", "--namespace", namespace)
        assert (done.code, done.out) == (3, "")
        assert done.err.startswith("error [not_found]: no execution x is known")


def test_what_is_refused_exits_4(cli: Cli) -> None:
    """An id that is taken by something else, and a cancel that comes too late, are refused."""
    cli.write("plan.json", plan({"id": "a", "task": "greet", "params": {"name": "${input}"}}))
    assert cli("run", "plan.json", *TASKS, "--input", '"Ada"', "--execution-id", "taken").code == 0
    done = cli("start", "plan.json", "--input", '"Bob"', "--execution-id", "taken")
    assert done.code == 4
    assert done.err.startswith("error [conflict]: ")
    done = cli("cancel", "taken")
    assert done.code == 4
    assert done.err.startswith("error [already_ended]: ")


def test_nobody_there_exits_5(cli: Cli, nats_server: NatsServer, namespace: str) -> None:
    """No server, no executor that confirms, and a wait that is over exit 5; passwords are not repeated."""
    done = cli("show", "x", "--server", "nats://me:secret@127.0.0.1:1", "--json")
    assert done.code == 5
    error = json.loads(done.err)["error"]
    assert (error["code"], error["exit_code"]) == ("unavailable", 5)
    assert "secret" not in done.err
    done = Cli(cli.directory, nats_server.url)("start", "--task", "greet", "--namespace", namespace)
    assert done.code == 5
    assert done.err.startswith("error [not_confirmed]: ")


def test_a_wait_that_is_over_exits_5(cli: Cli) -> None:
    """What was started on a server where nobody works is noted down, and a limited wait for it is over in time."""
    done = cli("start", "--task", "greet", "--wait-timeout", "0.2", "--execution-id", "waits")
    assert done.code == 5
    assert "nothing runs on .esexec" in done.err
    assert "error [await_timeout]: waits has not ended within 0.2 s" in done.err
    assert cli("show", "waits", "--json").json["status"] == "running"


async def test_a_forged_history_exits_6(cli: Cli, nats_server: NatsServer, namespace: str) -> None:
    """`verify` tells which history is not intact and where; `history` refuses to tell it."""
    named = Cli(cli.directory, nats_server.url)
    async with await connect(nats_server.url, name="forger") as connection:
        assert named("verify", "--all", "--namespace", namespace).code == 0  # makes the streams
        answer = await connection.request(f"esexec.{namespace}.log.forged.1", b'{"v": 1}')
        assert b'"seq"' in answer.data
    done = named("verify", "forged", "--namespace", namespace)
    assert done.code == 6
    assert "history not intact at commit 1" in done.out
    done = named("verify", "--all", "--namespace", namespace, "--json")
    assert done.code == 6
    assert [report["execution_id"] for report in done.json["broken"]] == ["forged"]
    done = named("history", "forged", "--namespace", namespace)
    assert done.code == 6
    assert done.err.startswith("error [corrupt_history]: ")


@pytest.mark.parametrize("words", [("--help",), ("plan", "show", "big.json"), ("config", "show", "--json")], ids=" ".join)
def test_whoever_reads_may_stop_reading(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A pipe that is closed by its reader is no error: nothing on stderr, exit code 0."""
    cli = Cli(tmp_path)
    cli.write("big.json", plan(*({"id": f"s{number}", "task": "t"} for number in range(2_000))))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, *words], cwd=tmp_path, env=cli.environment, stdout=pipe, stderr=subprocess.PIPE, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
