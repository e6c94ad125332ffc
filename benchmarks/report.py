"""What was measured, for a reader, and whether it is good enough."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

Figures = dict[str, Any]


class Mark(NamedTuple):
    """What a workload must reach: in words, and as a question to its figures."""

    words: str
    holds: Callable[[Figures], bool]


MARKS: Final[dict[str, Mark]] = {
    "w1": Mark("at least 70 % of raw", lambda found: found["ratio"] >= 0.7),
    "w2": Mark("at most 1.4 x raw", lambda found: found["ratio"] <= 1.4),
    "w3": Mark("at most 100 ms", lambda found: found["ms_p50"] <= 100),
    "w4": Mark("p50 at most 2 ms", lambda found: found["ms_p50"] <= 2),
    "w5": Mark("at most 8 s, none lost", lambda found: found["seconds"] <= 8 and found["lost"] == 0),
    "w6": Mark("at most 120 MB", lambda found: found["mb"] <= 120),
}
SYNCED: Final = frozenset({"w1", "w5", "w6"})
"""Their marks hold in both sync modes; those of the others at the server's default."""


def passes(found: Figures) -> bool | None:
    """Whether the mark is reached; None where it does not apply."""
    if found["sync"] == "always" and found["w"] not in SYNCED:
        return None
    # An idle system says a little of its own accord, which W4's pauses let one see.
    return MARKS[found["w"]].holds(found) and (found["w"] == "w4" or found.get("same_messages", True))


def line(found: Figures) -> str:
    """One workload for a reader."""
    head = f"{found['w'].upper()}  {found['sync']:<8}"
    match found["w"]:
        case "w1":
            text = f"{found['per_s']} executions/s, raw {found['raw_per_s']}, ratio {found['ratio']:.2f}"
        case "w2" | "w3" | "w4":
            what = {"w2": "per step", "w3": "in all", "w4": "to the first line"}[found["w"]]
            text = (
                f"{found['ms_p50']:.2f} / {found['ms_p99']:.2f} ms {what} (p50 / p99), "
                f"raw {found['raw_ms_p50']:.2f} / {found['raw_ms_p99']:.2f}, ratio {found['ratio']:.2f}"
            )
            if found["w"] == "w4":
                text += f"; round trip {found['round_trip_ms_p50']:.2f} / {found['round_trip_ms_p99']:.2f} ms"
        case "w5":
            text = f"{found['seconds']:.1f} s; lost {found['lost']}, started twice {found['started_twice']}"
        case _:
            text = f"{found['mb']} MB: server {found['server']}, executor {found['executor']}, worker {found['worker']}"
    return head + text + _traffic(found)


def _traffic(found: Figures) -> str:
    if "messages_per_execution" not in found:
        return ""
    indent = "\n              "
    cpu = "; ".join(f"{role} {used} ({found['raw_cpu_us'][role]})" for role, used in found["cpu_us"].items())
    return (
        f"{indent}per execution: {found['messages_per_execution']} messages (raw {found['raw_messages_per_execution']}), "
        f"{found['bytes_per_execution']} bytes (raw {found['raw_bytes_per_execution']})"
        f"{'' if found['same_messages'] or found['w'] == 'w4' else '  NOT THE SAME'}{indent}processor µs (raw): {cpu}"
    )


def verdict(found: Figures) -> str:
    """The mark of a workload, and whether it was reached."""
    reached = passes(found)
    mark = MARKS[found["w"]].words
    return f"{found['w'].upper()}  {found['sync']:<8}{'–' if reached is None else 'pass' if reached else 'FAIL'}  {mark}"
