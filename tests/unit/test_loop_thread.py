"""The loop of the blocking client: it lives until it is stopped, whatever is raised on it."""

import threading
from collections.abc import Iterator

import pytest

from esexec.client.loop import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread(lambda: None)
    loop.start()
    yield loop
    loop.stop()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_who_wants_to_end_the_program_does_not_end_the_loop(loop: LoopThread, kind: type[BaseException]) -> None:
    """It is raised where it was waited for, as anything else is; whoever calls after it is answered."""

    async def leave() -> None:
        raise kind(3)

    async def stay() -> int:
        return 1

    raised: list[object] = []

    def use() -> None:  # in a thread that may be left to itself: without the loop it would wait for ever
        try:
            loop.call(leave())
        except BaseException as error:
            raised.append(type(error))
        raised.append(loop.call(stay()))

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(10)
    assert raised == [kind, 1]
