"""The worker: takes attempts, runs handlers, reports outcomes.

Read in this order: `attempt` (one dispatch in hand) → `running` (its handler) → `images` (what was, before it) → `leases` (who
keeps it) → `lanes` (where attempts wait) → `worker` (the process).
"""

from esexec.worker.worker import Worker

__all__ = ["Worker"]
