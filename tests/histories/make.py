"""Makes golden histories through the decider, with fixed ids and times: `python -m tests.histories.make`. Overwrites none."""

from pathlib import Path

import msgspec

from esexec.domain.decider import Surroundings
from esexec.domain.settings import ExecutionConfig, TaskInfo
from esexec.domain.state import ExecutionState
from esexec.results import result_of
from tests.given import (
    History,
    Message,
    TimerOf,
    cancel,
    completed,
    due,
    failed,
    fatal,
    given,
    lost,
    start,
    started,
    step,
    stopped,
    timed_out,
    withdrawn,
)

EXECUTION = "e1"
AROUND = Surroundings(ExecutionConfig(max_retries=2), {"load": TaskInfo(timeout_ms=5_000, queue="slow")})

KINDS: dict[str, list[Message | TimerOf]] = {
    "completed": [
        start(
            step("load", params={"path": "${input.path}"}),
            step("left", "load", params={"row": "${steps.load.output.rows[0]}"}),
            step("right", "load", params={"text": "row ${steps.load.output.rows[1]}"}),
            step("join", "left", "right"),
            input={"path": "a.csv"},
            context={"user": "ada"},
            metadata={"ticket": 17},
            idempotency_key="order-17",
            actor="ada",
            plan_fields={"parallel": True},
        ),
        started("load", began=1, worker="w1"),
        completed("load", {"rows": ["é", 2.5, None]}, began=1, ended=2),
        completed("right", True),
        completed("left", [1, {"deep": {"er": []}}]),
        completed("join", "done", ended=4.125),
    ],
    "retried": [
        start("a", config={"jitter": 0.0}),
        failed("a", code="HTTP_503", retry_after_ms=2_500, context={"status_code": 503}, stack="Traceback …"),
        due("a"),
        lost("a", 10, 2),
        due("a"),
        completed("a", 3, 3),
    ],
    "failed": [
        start("a", "b", step("c", "a"), "d", "e", plan_fields={"parallel": True}, config={"parallel_execution_limit": 3}),
        failed("b"),
        fatal("a"),
        completed("d", "kept"),
    ],
    "continue_on_error": [
        start(step("c", "b"), step("b", "a"), "a", "d", config={"continue_on_error": True, "max_retries": 0}),
        failed("a"),
        completed("d", 4),
    ],
    "cancelled": [
        start("a", "b", "c", "d", step("e", "a"), "f", plan_fields={"parallel": True}, config={"parallel_execution_limit": 5}),
        started("a", worker="w1"),
        failed("d"),
        cancel("c2", "nobody wants it"),
        withdrawn("b"),
        completed("c", 1),
        stopped("a"),
        due(),
    ],
    "timed_out": [
        start(step("load", timeout_ms=1_000), config={"max_retries": 1, "initial_retry_delay_ms": 100, "jitter": 0.0}),
        timed_out("load"),
        due("load"),
        started("load", 2),
        timed_out("load", 2),
    ],
}


def history_of(kind: str) -> History:
    return given(*KINDS[kind], around=AROUND)


def picture(state: ExecutionState) -> bytes:
    """All that can be seen of an execution, as JSON."""
    return msgspec.json.format(msgspec.json.encode(result_of(state), order="sorted"), indent=1) + b"\n"


def main() -> None:
    here = Path(__file__).parent
    for kind in KINDS:
        file, history = here / f"{kind}.jsonl", history_of(kind)
        assert history.state.ended, f"{kind} has no end"
        if not file.exists():
            file.write_bytes(b"".join(one.data + b"\n" for one in history.stored))
            file.with_suffix(".json").write_bytes(picture(history.state))


if __name__ == "__main__":
    main()
