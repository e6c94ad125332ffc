"""What stands beside a buried message."""

from datetime import UTC, datetime

import pytest

from esexec.nats.dead import dead_headers, published


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
    block = dead_headers("code", "a\r\nNats-Rollup: all\nü", "esexec.ns.in.e.x", datetime(2026, 1, 1, tzinfo=UTC))
    lines = block.decode("ascii").split("\r\n")
    assert [line.partition(":")[0] for line in lines if line] == [
        "NATS/1.0", "Esexec-Reason", "Esexec-Message", "Esexec-Subject", "Esexec-Time",
    ]  # fmt: skip
