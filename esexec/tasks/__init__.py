"""The user's side of a worker: how handlers are declared, called and collected. No NATS, no event loop, no log.

`task` makes a `Task` of a function; `Context` is what a handler may know of its attempt; `collect` gathers tasks by name;
`encode_with_output` makes the bytes of a report that carries a handler's output.
"""

from esexec.tasks.context import AttemptCancelled, Context
from esexec.tasks.outputs import encode_with_output
from esexec.tasks.registry import Tasks, collect
from esexec.tasks.task import Task, task

__all__ = ["AttemptCancelled", "Context", "Task", "Tasks", "collect", "encode_with_output", "task"]
