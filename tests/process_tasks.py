"""Tasks that run in a process of their own, for tests: such a process imports them by name."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import esexec


@esexec.task(run_in="process")
def spin(seconds: float, ctx: esexec.Context) -> int:
    """Works the processor, and asks nobody."""
    ctx.metric("spun", 1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return os.getpid()


@esexec.task(run_in="process")
def spin_and_ask(ctx: esexec.Context) -> str:
    """Ends by itself once it is told to."""
    while True:
        ctx.check_cancelled()


@esexec.task(run_in="process")
def leave_a_thread(ctx: esexec.Context) -> int:
    """Something that it has started goes on telling when it is over."""

    def tell() -> None:
        while True:
            ctx.log.info("still here")
            time.sleep(0.002)

    threading.Thread(target=tell, daemon=True).start()
    return os.getpid()


@esexec.task(run_in="process")
def say_much() -> str:
    return "x" * 300_000


@esexec.task(run_in="process")
def where(ctx: esexec.Context) -> dict[str, object]:
    print("what a handler prints is not for the worker")
    ctx.log.info("here", pid=os.getpid())
    ctx.progress(0.5, "half")
    ctx.metric("rows", 3)
    ctx.vars["seen"] = True
    return {"pid": os.getpid(), "parent": os.getppid(), "stdin": sys.stdin.read(), "attempt": ctx.attempt}


@esexec.task(run_in="process")
async def on_a_loop(ctx: esexec.Context) -> int:
    ctx.vars["before"] = await ctx.before({"was": 1})
    return os.getpid()


@esexec.task(run_in="process")
def put(ctx: esexec.Context) -> object:
    return ctx.before_sync([1, 2])


@esexec.task(run_in="process", max_retries=1, retry_delay=0.01)
def crash_once(how: str, ctx: esexec.Context) -> int:
    if ctx.attempt == 1:
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, how))
    return ctx.attempt


@esexec.task(run_in="process", max_retries=0)
def fail(how: str) -> object:
    if how == "raise":
        raise esexec.TaskError("no", code="NO", directive=[1])
    if how == "exit":
        sys.exit(4)
    return object()


@esexec.task(run_in="process", cache=esexec.Cache(ttl="1h"))
def cached(n: int) -> int:
    return os.getpid()


@esexec.task(run_in="process")
def with_a_child(pids: str) -> None:
    """Starts something of its own, and waits for ever."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(pids).write_text(f"{os.getpid()} {other.pid}")
    time.sleep(600)


@esexec.task(run_in="process")
def hog(file: str) -> None:
    """Lets no other thread run for a long time: a pattern that backtracks."""
    import re

    Path(file).write_text(str(os.getpid()))
    re.match(r"(a+)+$", "a" * 40 + "b")
