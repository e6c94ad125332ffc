"""Handlers as methods of classes, for tests: a worker finds them in this module."""

from typing import Any

import esexec


class Shop(esexec.Handlers):
    """Needs nothing, so a worker makes an object of it."""

    def __init__(self) -> None:
        self.sold: list[str] = []

    @esexec.task(max_retries=1)
    async def sell(self, what: str, ctx: esexec.Context) -> dict[str, Any]:
        """Sells something."""
        self.sold.append(what)
        return {"sold": [*self.sold], "step": ctx.step}

    @sell.compensate
    def take_back(self, what: str) -> None:
        self.sold.remove(what)

    @esexec.task(name="stock/count")
    def count(self) -> int:
        return len(self.sold)

    async def handle_task(self, record: esexec.HandledTask) -> dict[str, Any]:
        match record.name:
            case "resize" | "crop":
                return {"name": record.name, "input": record.input, "id": record.id, "attempt": record.attempt}
            case "fail":
                raise esexec.TaskError("so it does", code="SO", retry=False)
        raise esexec.UnknownTask(record.name)
