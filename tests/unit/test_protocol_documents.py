"""The protocol as a document for programs: complete, and what `esexec protocol export` writes."""

import inspect
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from esexec import __version__
from esexec.cli.app import app
from esexec.domain.commands import VERBS
from esexec.nats.streams import stream_configs
from esexec.nats.subjects import STREAMS, Subjects
from esexec.protocol import CHANNELS, Channel, files
from tests.schemas import problems

KEPT = [one for one in CHANNELS if one.stream is not None]


def _example(channel: Channel) -> str:
    """A subject of this channel."""
    return re.sub(r"\{(\w+)\}", r"\1", str(channel.address).replace("{namespace}", "ns"))


@pytest.mark.parametrize("channel", [one for one in CHANNELS if one.address is not None], ids=lambda one: one.name)
def test_a_subject_is_of_one_channel(channel: Channel) -> None:
    """No subject of one channel can be taken for one of another, and each name in braces is explained."""
    assert [one.name for one in CHANNELS if one.holds(_example(channel))] == [channel.name]


@pytest.mark.parametrize("channel", KEPT, ids=lambda one: one.name)
def test_a_channel_is_kept_by_the_stream_that_it_names(channel: Channel) -> None:
    """The stream that a channel names takes what is published there, and no other stream does."""
    takes = {config["name"]: config["subjects"] for config in stream_configs(Subjects("ns"))}
    keeps = [name for name, subjects in takes.items() if any(_matches(subject, _example(channel)) for subject in subjects)]
    assert keeps == [f"ESEXEC_ns_{channel.stream}"]


def _matches(pattern: str, subject: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+"), subject) is not None


def test_every_stream_and_every_verb_has_its_channel() -> None:
    """All verbs are there, and something is published in every stream but the archive, which this release leaves empty, and the
    bucket of objects, whose subjects are JetStream's own."""
    assert {one.stream for one in KEPT} == set(STREAMS) - {"ARCHIVE", "OBJECTS"}
    assert {one.name for one in CHANNELS if one.name.startswith("cmd.")} == {f"cmd.{verb}" for verb in VERBS}


def test_export_writes_both_documents(tmp_path: Path) -> None:
    """`esexec protocol export DIR` makes the directory, writes what `files` gives, and says where."""
    told = CliRunner().invoke(app, ["protocol", "export", str(tmp_path / "new"), "--json"])
    assert told.exit_code == 0, told.output
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir()}
    assert written == files(__version__)
    assert sorted(json.loads(told.stdout)) == sorted(str(path) for path in (tmp_path / "new").iterdir())


def test_export_refuses_what_is_no_directory(tmp_path: Path) -> None:
    """A directory that cannot be made is said to be none, with exit code 2."""
    (tmp_path / "file").write_text("")
    told = CliRunner().invoke(app, ["protocol", "export", str(tmp_path / "file")])
    assert (told.exit_code, "[bad_file]" in told.output) == (2, True)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("StartExecution", {"id": "c-1"}),
        ("StartExecution", {"id": "c-1", "task": "a", "plan": {"name": "b", "steps": []}}),
        ("StartExecution", {"id": "c.1", "task": "a"}),
        ("CancelExecution", {"id": "c-1", "why": "unknown field"}),
        ("Started", {"type": "completed", "started_at": "2026-11-20T13:37:56Z"}),
        ("Started", {"type": "started", "started_at": "yesterday"}),
        ("ProgressSignal", {"execution_id": "a", "step": "b", "attempt": 1, "time": "2026-11-20T13:37:56Z", "fraction": 1.5}),
        (
            "Commit",
            {"v": 1, "execution_id": "a", "n": 1, "version": 1, "time": "2026-11-20T13:37:56Z", "events": [{"type": "no"}]},
        ),
    ],
)
def test_what_is_no_message_is_invalid(name: str, document: object) -> None:
    """The schemas say no to what the engine would refuse."""
    assert problems(name, document) != []


_ONE_BY_ONE = {"command", "live", "query", "queries", "log_prefix"}
"""What is made with these has its kinds one by one."""
_NOBODY_S = {"archive", "stored"}
"""Nothing is there as yet; and what a library keeps for itself."""


def test_every_subject_that_is_made_has_its_channel() -> None:
    """Whatever subject the engine can make, to publish on it, is of a channel."""
    names, made = Subjects("ns"), {}
    for name, builder in inspect.getmembers(Subjects, lambda one: isinstance(one, property) or inspect.isfunction(one)):
        if name.startswith(("_", "parse_")) or name in _ONE_BY_ONE | _NOBODY_S:
            continue
        made[name] = getattr(names, name)
        if not isinstance(builder, property):
            made[name] = made[name](*(["1-1"] * len(inspect.signature(made[name]).parameters)))
    subjects = {name: one for name, one in made.items() if isinstance(one, str) and one.startswith("esexec.ns.")}
    plain = {name: one for name, one in subjects.items() if not re.search(r"[*>{]", one)}
    assert "report" in plain
    assert {name: one for name, one in plain.items() if not any(channel.holds(one) for channel in CHANNELS)} == {}
