"""What stands beside a buried message."""

from datetime import UTC, datetime

import pytest

from esexec.nats.dead import dead_letter, is_intake, published

T = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("esexec.ns.commands.7.e1.start", "esexec.ns.cmd.e1.start"),
        ("esexec.ns.inbox.11.e1.report.default.a.1-2", "esexec.ns.in.e1.report.default.a.1-2"),
        ("esexec.ns.task.default.5.e1.a.1-1", "esexec.ns.task.default.5.e1.a.1-1"),
        ("nonsense", "nonsense"),
    ],
)
def test_the_subject_is_the_one_to_publish_to_again(stored: str, expected: str) -> None:
    """A stored subject becomes the one that a client would publish to: without the partition."""
    assert published(stored) == expected


def test_no_text_breaks_out_of_its_header() -> None:
    """Line breaks and letters beyond ASCII in a reason cannot make further headers."""
    _, block = dead_letter("code", "a\r\nNats-Rollup: all\nü", "esexec.ns.in.e.x", T, b"", 10_000)
    lines = block.decode("ascii").split("\r\n")
    assert [line.partition(":")[0] for line in lines if line] == [
        "NATS/1.0", "Esexec-Reason", "Esexec-Message", "Esexec-Subject", "Esexec-Time",
    ]  # fmt: skip


def test_what_does_not_fit_is_cut_and_says_so() -> None:
    """A body for which the reason leaves no room is cut to what fits, and the letter says how long it was."""
    whole = dead_letter("code", "m", "s", T, b"x" * 100, 10_000)
    assert (whole.data, b"Esexec-Cut" in whole.headers) == (b"x" * 100, False)
    bytes_max = len(whole.data) + len(whole.headers)
    assert dead_letter("code", "m", "s", T, b"x" * 100, bytes_max) == whole
    cut = dead_letter("code", "m", "s", T, b"x" * 101, bytes_max)
    assert len(cut.data) + len(cut.headers) == bytes_max
    assert b"Esexec-Cut: 101\r\n" in cut.headers


@pytest.mark.parametrize(
    ("subject", "may"),
    [
        ("esexec.ns.cmd.e1.start", True),
        ("esexec.ns.cmd._settings.configure", True),
        ("esexec.ns.in.e1.nudge", True),
        ("esexec.ns.in.e1.report.default.a.1-2", True),
        ("esexec.ns.in._pools.acquire.e1.a.1-1", True),
        ("esexec.other.cmd.e1.start", False),
        ("esexec.ns.log.e1.1", False),
        ("esexec.ns.task.default.5.e1.a.1-1", False),
        ("esexec.ns.due.e1.1", False),
        ("esexec.ns.cmd.*.start", False),
        ("esexec.ns.cmd.e1.>", False),
        ("esexec.ns.cmd.e1.start.more", False),
        ("esexec.ns.cmd.e1.st art", False),
        ("esexec.ns.cmd..start", False),
        ("$JS.API.STREAM.DELETE.esexec.ns.cmd.e1.start", False),
        ("x.esexec.ns.cmd.e1.start", False),
        ("esexec.ns.cmd.e1.\u202estart", False),
        ("", False),
    ],
)
def test_a_letter_is_put_back_into_the_intake_only(subject: str, may: bool) -> None:
    """Whoever could write a letter could name any subject: none but those of commands and of INBOX are believed."""
    assert is_intake(subject, "ns") is may
