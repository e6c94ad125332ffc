"""Executors that die while a plan is kept: what was acknowledged is kept, once, and can be started."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import esexec
from esexec.domain.kept_plans import PLANS_ENTITY, plan_entity
from tests.chaos.rig import Rig, tail
from tests.chaos.test_deaths import dead, plan, reborn
from tests.server import NatsServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


@pytest.fixture
async def rig(own_server: NatsServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """What an executor did not let go comes again after a second."""
    rig = Rig(tmp_path, own_server)
    await rig.make_streams(ack_wait_ms=1000)
    yield rig
    rig.close()


@pytest.mark.parametrize("point", ["decided:1", "appended:1", "decided:2", "appended:2", "ack:2"])
async def test_an_executor_may_die_while_it_keeps_a_plan(rig: Rig, point: str) -> None:
    """Before or after the document is written, before or after it is listed, before the acknowledgement: one document, one line.

    The first message that is let go is the worker's announcement.
    """
    executor, _worker = rig.executor(die=point), rig.worker()
    await rig.ready()
    async with esexec.connect(rig.url, namespace=rig.namespace, confirm_s=30) as client:
        putting = asyncio.ensure_future(client.plans.put(plan()))
        await dead(executor)
        await reborn(executor)
        kept = await putting
        assert (kept.plan_id, kept.status) == (plan().id, "ready"), tail(executor.log)
        for entity in (plan_entity(kept.plan_id), PLANS_ENTITY):
            verification = await client.verify(entity)
            assert (verification.ok, verification.commits) == (True, 1)
        assert (await client.execute(kept.plan_id, wait_timeout=20, initial_retry_delay=0.05)).ok
    await rig.at_rest()
