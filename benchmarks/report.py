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
    "catchup": Mark(
        "at least 20,000 events/s alone, 5,000 with all", lambda found: found["per_s"] >= 20_000 and found["all_per_s"] >= 5_000
    ),
    "queries": Mark("p50 at most 3 ms", lambda found: found["ms_p50"] <= 3),
    "load": Mark("p50 at most 15 % later, lag below 1 s", lambda found: found["ratio"] <= 1.15 and found["lag_s_max"] < 1),
}
SYNCED: Final = frozenset({"w1", "w5", "w6"})
"""Their marks hold in both sync modes; those of the others at the server's default."""


_INDENT = "\n              "


def passes(found: Figures) -> bool | None:
    """Whether the mark is reached; None where it does not apply, or there is none."""
    if found["w"] not in MARKS or (found["sync"] == "always" and found["w"] not in SYNCED):
        return None
    # An idle system says a little of its own accord, which W4's pauses let one see.
    return MARKS[found["w"]].holds(found) and (found["w"] == "w4" or found.get("same_messages", True))


def line(found: Figures) -> str:
    """One workload for a reader."""
    head = f"{found['w'].upper():<4}{found['sync']:<8}" if found["w"][0] == "w" else f"{found['w']}  {found['sync']:<8}"
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
        case "catchup":
            text = (
                f"{found['per_s']} events/s of `executions` alone ({found['cpu_us_per_event']} µs of processor each), "
                f"{found['all_per_s']} of all {found['projections']} projections ({found['all_cpu_us_per_event']} µs)"
            )
        case "queries":
            text = f"{found['ms_p50']:.2f} ms (p50 of the slowest kind), {found['executions']} executions" + "".join(
                f"{_INDENT}{name}: {one['ms_p50']:.2f} / {one['ms_p99']:.2f} ms (p50 / p99), {one['items']} items"
                for name, one in found["asked"].items()
            )
        case "load":
            text = _beside(found)
        case "gated":
            text = f"{found['per_s']} executions/s ungated ({found['cpu_us']} µs of processor each)" + "".join(
                f"{_INDENT}{kind}: {one['per_s']}/s, ratio {one['ratio']:.2f}; {one['cpu_us']} µs, ratio {one['cpu_ratio']:.2f}"
                for kind, one in found["gated"].items()
            )
        case _:
            text = f"{found['mb']} MB: server {found['server']}, executor {found['executor']}, worker {found['worker']}"
    return head + text + _traffic(found)


def _beside(found: Figures) -> str:
    kinds = {"all": "with all projections", "views": "but for the feed", "without": "without"}
    paced = "; ".join(f"{found[f'{kind}_ms_p50']:.2f} / {found[f'{kind}_ms_p99']:.2f} {said}" for kind, said in kinds.items())
    saturated = ", ".join(f"{found[f'{kind}_per_s']} {said}" for kind, said in kinds.items())
    return (
        f"ms at {found['offered_per_s']}/s (p50 / p99): {paced}"
        f"{_INDENT}ratio {found['ratio']:.2f}, but for the feed {found['views_ratio']:.2f}"
        f"{_INDENT}lag {found['lag_s_p50']:.3f} s (p50), at most {found['lag_s_max']:.3f} s; "
        f"{found['cpu_us']} µs of processor per execution, {found['views_cpu_us']} but for the feed"
        f"{_INDENT}saturated: executions/s {saturated}; ratio {found['saturated_ratio']:.2f}"
        f"{_INDENT}at most {found['commits_behind']} commits behind, caught up {found['catch_up_s']:.2f} s later"
    )


def _traffic(found: Figures) -> str:
    if "messages_per_execution" not in found:
        return ""
    cpu = "; ".join(f"{role} {used} ({found['raw_cpu_us'][role]})" for role, used in found["cpu_us"].items())
    return (
        f"{_INDENT}per execution: {found['messages_per_execution']} messages (raw {found['raw_messages_per_execution']}), "
        f"{found['bytes_per_execution']} bytes (raw {found['raw_bytes_per_execution']})"
        f"{'' if found['same_messages'] or found['w'] == 'w4' else '  NOT THE SAME'}{_INDENT}processor µs (raw): {cpu}"
    )


def verdict(found: Figures) -> str:
    """The mark of a workload, and whether it was reached."""
    reached = passes(found)
    mark = MARKS[found["w"]].words if found["w"] in MARKS else "no mark"
    return f"{found['w'].upper()}  {found['sync']:<8}{'–' if reached is None else 'pass' if reached else 'FAIL'}  {mark}"
