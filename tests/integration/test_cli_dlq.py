"""`esexec dlq`, as real processes beside a running engine: what is printed, in words and as JSON, and how they exit."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from esexec.nats.connection import connect
from esexec.nats.lean import header_block
from tests.integration.cli import TASKS, Cli

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]

EVIL = "\x1b[2J\u202egnp.exe"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """For those who only look."""
    with _beside_three_letters(tmp_path_factory.mktemp("dlq")) as cli:
        yield cli


@contextmanager
def _beside_three_letters(directory: Path) -> Iterator[Cli]:
    """A command line beside a running `esexec dev`; of the three letters there two were not buried by an executor."""
    cli = Cli(directory)
    with cli.running("dev", *TASKS) as role:
        words = role.until("try in another terminal")
        url = next(word for word in words.split() if word.startswith("nats://"))
        asyncio.run(_bury(url))
        yield cli


async def _bury(url: str) -> None:
    async with await connect(url, name="hostile") as connection:
        post = connection.client.post
        post("esexec.default.cmd.order-1.start", b"start order 1, please")
        while not (await connection.api("STREAM.INFO.ESEXEC_default_DEAD"))["state"]["messages"]:
            await asyncio.sleep(0.01)
        evil = {"Esexec-Reason": EVIL, "Esexec-Message": EVIL, "Esexec-Subject": "$JS.API.STREAM.DELETE.ESEXEC_default_LOG"}
        post("esexec.default.dead.order-2.start", json.dumps({"id": "c-2", "evil": EVIL}, ensure_ascii=False).encode(), "",
             header_block(evil))  # fmt: skip
        started = {"Esexec-Reason": "poison", "Esexec-Subject": "esexec.default.cmd.order-3.start"}
        body = json.dumps({"id": "c-3", "task": "greet", "input": {"name": "Ada"}}).encode()
        post("esexec.default.dead.order-3.start", body, "", header_block(started))
        await connection.flush()


def test_letters_are_listed_and_shown(cli: Cli) -> None:
    """Number, execution, verb, reason; by execution and reason; the body as far as it can be read."""
    listed = cli("dlq", "ls")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["1", "2", "3"]
    assert listed.out.splitlines()[0].split()[3:8] == ["order-1", "start", "undecodable", "not", "understood:"]
    assert [one["id"] for one in cli("dlq", "ls", "--reason", "poison", "--json").json["items"]] == [3]
    assert [one["id"] for one in cli("dlq", "ls", "--execution", "order-1", "--json").json["items"]] == [1]
    page = cli("dlq", "ls", "--limit", "2", "--json").json
    assert [one["id"] for one in cli("dlq", "ls", "--cursor", page["cursor"], "--json").json["items"]] == [3]
    shown = cli("dlq", "show", "1")
    assert "came on  esexec.default.cmd.order-1.start" in shown.out
    assert shown.out.endswith("\nstart order 1, please\n")
    told = cli("dlq", "show", "3", "--json").json
    assert (told["command_id"], told["content"]["input"]) == ("c-3", {"name": "Ada"})


@pytest.mark.parametrize("words", [("ls",), ("show", "2"), ("redrive", "2"), ("ls", "--json"), ("show", "2", "--json")])
def test_nothing_of_a_letter_acts_on_the_terminal(cli: Cli, words: tuple[str, ...]) -> None:
    """What somebody hostile wrote is written out, and where it says that it came from is not believed."""
    done = cli("dlq", *words)
    assert all(char.isprintable() or char == "\n" for char in done.out + done.err)
    assert done.code == (4 if words[0] == "redrive" else 0)
    assert ("[not_redrivable]" in done.err) == (words[0] == "redrive")


def test_letters_are_put_back_and_deleted(tmp_path: Path) -> None:
    """What became of each; twice is once; exit 1 where something is still wrong; `rm` deletes."""
    with _beside_three_letters(tmp_path) as cli:
        _put_back(cli)


def _put_back(cli: Cli) -> None:
    assert cli("dlq", "redrive", "3").out == "3 order-3 start: accepted\n"
    assert cli("watch", "order-3").code == 0
    commits = len(cli("history", "order-3").out.splitlines())
    again = cli("dlq", "redrive", "3", "--json")
    assert (again.code, again.lines[0]["outcome"]) == (0, "accepted")
    assert len(cli("history", "order-3").out.splitlines()) == commits
    everything = cli("dlq", "redrive", "--all", "--delete")
    assert everything.code == 1
    for words in ("1 order-1 start: buried again as 4: [undecodable]", "2 order-2 start: left: [not_redrivable]",
                  "3 order-3 start: accepted (letter deleted)"):  # fmt: skip
        assert words in everything.out
    assert [one["id"] for one in cli("dlq", "ls", "--json").json["items"]] == [2, 4]
    assert cli("dlq", "rm", "2", "4").out == "deleted\n"
    assert cli("dlq", "ls").out == "no dead letters\n"


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("show", "99"), 3, "unknown_letter"),
        (("rm", "99"), 3, "unknown_letter"),
        (("redrive", "99"), 3, "unknown_letter"),
        (("redrive",), 2, "usage"),
        (("redrive", "1", "--all"), 2, "usage"),
        (("ls", "--cursor", "x"), 2, "bad_cursor"),
        (("ls", "--execution", "a.b"), 2, "bad_execution_id"),
        (("show", "x"), 2, "usage"),
    ],
)
def test_mistakes_have_their_exit_codes(cli: Cli, words: tuple[str, ...], code: int, name: str) -> None:
    """One line with a code."""
    done = cli("dlq", *words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error [{name}]: ")
