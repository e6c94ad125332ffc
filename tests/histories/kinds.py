"""What happens in each golden history: the messages, by kind, and the namespace that they are decided in."""

from esexec.domain import events as e
from esexec.domain.decider import Surroundings
from esexec.domain.measures import Measured, Metric
from esexec.domain.settings import NamespaceConfig, TaskInfo
from esexec.domain.strategies import Strategy
from tests.given import (
    Message,
    TimerOf,
    advised,
    at,
    before,
    cancel,
    checkpoint,
    completed,
    denied,
    due,
    failed,
    fatal,
    found,
    granted,
    lost,
    pause,
    rejected,
    restore,
    resume,
    retry,
    rollback,
    start,
    started,
    step,
    stopped,
    timed_out,
    undone,
    waits,
    withdrawn,
)

Story = list[Message | TimerOf | e.Event]

AROUND = Surroundings(NamespaceConfig(max_retries=2), {"load": TaskInfo(timeout_ms=5_000, queue="slow")})

OF_STEPS: dict[str, Story] = {
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

# The lifecycle ---------------------------------------------------------------------------------------------------------

PARALLEL = {"parallel": True}
SHOP = Surroundings(
    NamespaceConfig(max_retries=1, jitter=0.0),
    {
        "create_site": TaskInfo(queue="sites"),
        "delete_site": TaskInfo(queue="sites"),
        "update_price": TaskInfo(),
        "book": TaskInfo(compensate="unbook"),
        "unbook": TaskInfo(timeout_ms=1_000),
        "rent": TaskInfo(compensate="return"),
        "return": TaskInfo(queue_timeout_ms=5_000),
        "lend": TaskInfo(compensate="take_back"),
    },
    (
        Strategy(id="network", name="Network", applicable_errors=("NETWORK_*",), queue="recovery", timeout_ms=5_000),
        Strategy(id="patient", applicable_errors=("BUSY",), before_retries=True),
    ),
)


def down(step: str, attempt: int = 1, *, run: int = 1) -> Message:
    """A failure that a strategy is asked about."""
    return failed(step, attempt, run=run, code="NETWORK_DOWN", retryable=False)


OF_EXECUTIONS: dict[str, Story] = {
    "scheduled": [
        start("a", delay_ms=60_000, start_at=at(30), deadline=at(3_600), parent="e0/step", actor="ada"),
        pause("p1", "not yet"),
        resume("r1"),
        due(kind="start"),
        completed("a", 1, vars={"seen": [1]}),
    ],
    "paused": [
        start("a", "b", "c", "d", plan_fields=PARALLEL, config={"parallel_execution_limit": 3}),
        started("a", worker="w1"),
        failed("b"),
        pause("p1", "lunch"),
        withdrawn("c", pause=10),
        completed("a", 1),
        resume("r1"),
        due("b"),
        pause("p2"),
        resume("r2"),
        completed("b", 2, 2),
        completed("c", 3),
        completed("d", 4),
    ],
    "deadline": [
        start("a", "b", step("c", "a"), plan_fields=PARALLEL, config={"execution_timeout_ms": 60_000}),
        started("a", worker="w1"),
        due(kind="deadline"),
        withdrawn("b"),
        stopped("a"),
    ],
    "never_begun": [
        start("a", step("b", "a"), delay_ms=60_000, deadline=at(30)),
        pause("p1"),
        due(kind="deadline"),
    ],
    "queue_timeout": [
        start(step("a", queue_timeout_ms=5_000, timeout_ms=1_000, timeout_growth=2.0, max_retries=2)),
        due("a", "queue"),
        withdrawn("a"),
        due("a"),
        timed_out("a", 2),
        due("a"),
        started("a", 3),
        completed("a", 1, 3),
    ],
    "rolled_back": [
        start(
            step("site", task="create_site", params={"name": "North"}),
            step("price", task="update_price", params={"id": 1, "price": 20}),
            "note",
            step("dock", task="book", params={"site": "${steps.site.output.id}"}),
            "last",
        ),
        completed("site", {"id": "s-1"}),
        before("price", {"id": 1, "price": 10}),
        completed("price"),
        completed("note"),
        completed("dock", {"dock": 7}),
        fatal("last"),
        started("dock", 2, worker="w2"),
        failed("dock", 2),
        due("dock"),
        undone("dock", 3),
        undone("price"),
        undone("site"),
    ],
    "deeds": [
        start(
            step("a", task="rent", fallback="lend", max_retries=0),
            step("b", task="book", params={"n": "${steps.a.output.n}"}),
            "z",
            config={"enable_rollback": False},
        ),
        timed_out("a"),
        completed("a", {"n": 1}, 2),
        checkpoint("cp"),
        completed("b", {"dock": 1}),
        fatal("z"),
        restore("e1.11", id="r1"),
        completed("b", {"dock": 2}, run=2),
        fatal("z", run=2),
        rollback("rb"),
        completed("b", None, 2, run=2, vars={"free": [2]}),
        undone("a", 3, run=2),
        due("a", "queue"),
        withdrawn("a", 4, run=2),
        due("a"),
        undone("a", 5, run=2),
        retry(id="r2", as_new=True, new_id="e2"),
    ],
    "partial_rollback": [
        start("a", step("b", task="book", timeout_ms=0), step("c", task="book"), "d", config={"enable_rollback": False}),
        completed("a"),
        completed("b", 1),
        timed_out("c"),
        due("c"),
        lost("c", 10, 2),
        rollback("rb", "clean up"),
        fatal("c", 3),
        undone("b"),
    ],
    "rollback_cancelled": [
        start(step("a", task="book"), step("b", task="book")),
        completed("a"),
        completed("b"),
        rollback("rb"),
        started("b", 2),
        cancel("c9", "leave it"),
        stopped("b", 2),
    ],
    "undone_in_time": [
        start(step("a", task="book"), "b"),
        completed("a", {"dock": 7}),
        fatal("b"),
        started("a", 2, worker="w1"),
        cancel("c9", "too late"),
        undone("a"),
    ],
    "redone": [
        start(
            step("a", task="book"),
            step("b", task="rent", params={"n": "${steps.a.output.n}"}, max_retries=0),
            "z",
            config={"enable_rollback": False},
        ),
        checkpoint("cp"),
        completed("a", {"n": 1}),
        completed("b", {"id": 1}),
        fatal("z"),
        restore("e1.4", id="r1"),
        completed("a", {"n": 2}, run=2),
        timed_out("b", run=2),
        rollback("rb"),
        undone("b", run=2),
        undone("b", 3, run=2),
        undone("a", run=2),
    ],
    "retried_execution": [
        start("a", "b", step("c", "a"), step("d", "b"), config={"continue_on_error": True}),
        fatal("a"),
        failed("b", retryable=False, vars={"row": 17}),
        retry("a", id="r1"),
        completed("a", 1, run=2),
        completed("c", 2, run=2),
        retry(id="r2"),
        completed("b", 3, run=3),
        completed("d", 4, run=3),
    ],
    "forked": [
        start("a", step("b", params={"n": "${steps.a.output}"}), input={"x": 1}),
        completed("a", 1),
        fatal("b"),
        retry(id="r1", as_new=True, new_id="e2"),
    ],
    "checkpoint_restored": [
        start("a", "b", "c", config={"checkpoint_interval_ms": 60_000, "checkpoint_every": "task"}),
        due(kind="checkpoint"),
        completed("a", 1, vars={"k": 1}),
        checkpoint("cp", why="by hand"),
        completed("b", 2, vars={"k": 2}),
        started("c"),
        restore("e1.9", id="r1", reason="once more"),
        e.CheckpointFailed(message="no room", by="interval"),
        completed("b", 3, run=2),
        completed("c", 4, run=2),
    ],
    "recovered": [
        start("a", "b", step("c", fallback="plan_c"), "d", step("e", "b")),
        down("a"),
        started("a", 2, worker="w3"),
        advised("a", "retry", message="it is back", vars={"tries": 1}),
        completed("a", 1, 3),
        down("b"),
        advised("b", "skip"),
        down("c"),
        advised("c", "fallback"),
        completed("c", 3, 3),
        checkpoint("cp"),
        failed("d", code="BUSY"),
        advised("d", "retry"),
        down("d", 3),
        advised("d", "checkpoint_restore", 4, message="from c", vars={"tries": 2}),
        completed("d", 4, run=2),
        completed("e", 5, run=2),
    ],
    "of_no_help": [
        start(step("a", fallback="plan_b"), "b"),
        failed("a", code="BUSY"),
        advised("a", "skip", success=False, message="busy as well"),
        due("a"),
        failed("a", 3, code="BUSY"),
        advised("a", "skip", 4, success=False),
        completed("a", 1, 5),
        pause("p1"),
        withdrawn("b", pause=21),
        cancel("c9"),
    ],
    "unheard": [
        start(step("a", fallback="plan_b")),
        down("a"),
        due("a", "queue"),
        withdrawn("a", 2),
        completed("a", 1, 3),
    ],
    "rejected": [
        start(step("a", fallback="plan_b"), step("b", fallback="plan_b"), config={"parallel_execution_limit": 1}),
        rejected("a"),
        completed("a", 1, 2),
        started("b"),
        rejected("b"),
        rejected("b", 2),
    ],
    "rejected_later": [start("a"), started("a"), rejected("a")],
    "aborted": [
        start(
            step("a", task="book"), step("b", fallback="plan_b"), "c", config={"continue_on_error": True, "enable_rollback": True}
        ),
        completed("a"),
        down("b"),
        failed("b", 2, code="OOPS"),
        undone("a"),
    ],
    "fallback": [
        start(step("a", fallback="plan_b", max_retries=0), step("b", params={"n": "${steps.a.output}"})),
        timed_out("a"),
        completed("a", 7, 2),
        completed("b", 8),
    ],
}
"""What has happened in the life of an execution as a whole."""

OF_FLOW_CONTROL: dict[str, Story] = {
    "granted": [
        start(
            step("a", rate_limit={"max_executions": 2, "window_ms": 1_000}, concurrency={"key": "input.user", "limit": 2}),
            step("b", resources=[{"type": "gpu", "amount": 2}]),
            input={"user": "ada"},
            plan_fields={"config": {"concurrency": {"key": "input.user"}}},
        ),
        granted("_", 0, by="concurrency", entity="_slots-1"),
        waits("a", by="concurrency"),
        granted("a", by="concurrency", entity="_slots-2"),
        waits("a", until=9),
        granted("a"),
        completed("a", 1, began=9, ended=10),
        granted("b", by="resources", entity="_pools"),
        completed("b", 2, began=10, ended=11),
    ],
    "denied": [
        start(
            step("a", resources=[{"type": "gpu"}], fallback="cpu"),
            "b",
            config={"rate_limit": {"max_executions": 1, "window_ms": 60_000, "on_limit": "reject"}},
        ),
        denied("a", by="resources", code="resource_unavailable"),
        denied("a", 2, by="resources", code="resource_unavailable"),
    ],
    "skipped": [
        start("a", input={"user": "ada"}, plan_fields={"config": {"concurrency": {"key": "input.user", "policy": "skip"}}}),
        denied("_", 0, by="concurrency", code="skipped"),
    ],
}

OF_HANDLERS: dict[str, Story] = {
    "unwanted": [
        start("a", step("b", when="not ${steps.a.output.stop}"), step("c", "b"), step("d", params={"...": "${steps.a.output}"})),
        completed("a", {"stop": True}),
        completed("d", [1]),
    ],
    "cached": [
        start("a", step("b", "a"), step("c", "b", task="book"), "d"),
        started("a", worker="w1"),
        found("a", {"rows": 3}),
        found("b", 2, source="e1/a"),
        found("c", "seat 7"),
        fatal("d"),
    ],
    "measured": [
        start("a", step("b", "a", task="book"), "c", config={"jitter": 0.0, "enable_rollback": True}),
        failed("a", measured=Measured(cost=0.5, metrics=(Metric(name="rows", values={"value": 12}),))),
        due("a"),
        completed("a", 1, 2, measured=Measured(quality=0.93, cost=0.25)),
        completed("b", 2, measured=Measured(metrics=(Metric(name="io", values={"ms": 1.5, "bytes": 3}, tags={"disk": "a"}),))),
        fatal("c"),
        completed("b", None, 2, measured=Measured(quality=0.5, cost=2.0)),
    ],
}
"""What handlers tell of their attempts, and what they need not do."""

KINDS: dict[str, tuple[Story, Surroundings]] = {
    **{kind: (story, AROUND) for kind, story in OF_STEPS.items()},
    **{kind: (story, SHOP) for kind, story in OF_EXECUTIONS.items()},
    **{kind: (story, SHOP) for kind, story in OF_HANDLERS.items()},
    **{kind: (story, Surroundings()) for kind, story in OF_FLOW_CONTROL.items()},
}
