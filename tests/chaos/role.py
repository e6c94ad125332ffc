"""One process of the engine, to be killed: python -m tests.chaos.role KIND URL NAMESPACE NAME [OPTIONS as JSON]

KIND: executor, worker or projections. `die` in the options names a point of the code at which the process kills itself (see
`dying`).
"""

import asyncio
import json
import logging
import signal
import sys

import uvloop

import esexec
from projections.role import Projector
from tests.chaos import dying
from tests.chaos.counting import Counting
from tests.chaos.handlers import STRATEGIES, TASKS


async def run(kind: str, url: str, namespace: str, name: str, options: dict[str, object]) -> None:
    if (point := options.pop("die", None)) is not None:
        dying.arm(str(point))
    role: esexec.Executor | esexec.Worker | Projector
    if kind == "projections":
        role = Projector(url, namespace=namespace, include=[Counting], patience=60, **options)
        await role.start()
        logging.getLogger("esexec.chaos").info("projections %s ready", name)
    elif kind == "executor":
        role = esexec.Executor(url, namespace=namespace, name=name, patience=60, **options)
    else:
        role = esexec.Worker(url, namespace=namespace, name=name, patience=60, tasks=TASKS, strategies=STRATEGIES, **options)
    running = asyncio.ensure_future(role.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        logging.getLogger("esexec.chaos").info("%s drained", name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s")
    logging.getLogger("esexec.executor").setLevel(logging.DEBUG)
    logging.getLogger("esexec.worker").setLevel(logging.DEBUG)
    logging.getLogger("eventsourcing").setLevel(logging.WARNING)
    uvloop.run(run(*sys.argv[1:5], json.loads(sys.argv[5]) if len(sys.argv) > 5 else {}))
