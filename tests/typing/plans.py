"""What the type checker must know of plans and their settings. Never run: `mypy tests/typing` checks it."""

from datetime import timedelta

import esexec


@esexec.task
def ship(order: str) -> str:
    return order


@esexec.task
def recall(order: str) -> None: ...


step = esexec.Step(ship, fallback="ship_by_post", compensate=recall, timeout_growth=2, queue_timeout="5m", queue_timeout_ms=None)
esexec.Step(ship, fallback=3)  # type: ignore[arg-type]
esexec.Step(ship, execution_timeout="1h")  # type: ignore[call-arg]

critical = esexec.ExecutionConfig.preset("critical")
esexec.Plan("orders", [step], config=critical, execution_timeout=timedelta(hours=2))
esexec.Plan("orders", [step], preset="bulk", config={"max_retries": 7}, checkpoint_interval="5m", checkpoint_every="task")
esexec.Plan("orders", [step], config=esexec.ExecutionConfig(max_retries=7, on_missing_compensation="fail"))
esexec.Plan("orders", [step], on_missing_compensation="stop")  # type: ignore[arg-type]
esexec.Plan("orders", [step], checkpoint_every="hour")  # type: ignore[arg-type]
