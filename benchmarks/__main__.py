"""`python -m benchmarks [WORKLOAD …] [--sync default|always|both] [--json] [--check]`: see docs/explanation/benchmarks.md."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from benchmarks.beside import load
from benchmarks.catchup import catchup
from benchmarks.footprint import w6
from benchmarks.gated import gated
from benchmarks.latency import w2, w3, w4
from benchmarks.queries import queries
from benchmarks.recovery import w5
from benchmarks.report import line, passes, verdict
from benchmarks.rounds import Options
from benchmarks.throughput import w1

WORKLOADS: Final[dict[str, Callable[[Options], dict[str, Any]]]] = {
    "w1": w1,
    "w2": w2,
    "w3": w3,
    "w4": w4,
    "w5": w5,
    "w6": w6,
    "catchup": catchup,
    "queries": queries,
    "load": load,
    "gated": gated,
}
WORDS: Final = """\
w1 to w6: the engine, against raw messages. catchup: how fast projections catch up with a log. queries: how long questions to read
models take. load: what projections cost the executions that they follow. gated: what rate limits, keys and resources cost.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=WORDS)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--sync", choices=("default", "always", "both"), default="default", help="the server's sync_interval")
    parser.add_argument("--executions", type=int, help="of the engine, over all rounds")
    parser.add_argument("--rounds", type=int, help="of engine and raw, by turns")
    parser.add_argument("--json", action="store_true", help="one JSON object per workload and line")
    parser.add_argument("--check", action="store_true", help="compare with the marks; exit code 1 if one is missed")
    options = parser.parse_args()
    chosen = options.workloads or list(WORKLOADS)
    if unknown := set(chosen) - set(WORKLOADS):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    missed = False
    try:
        for workload in chosen:
            for sync in ("default", "always") if options.sync == "both" else (options.sync,):
                found = WORKLOADS[workload](Options(sync, options.executions, options.rounds))
                reached = passes(found)
                missed = missed or reached is False
                if options.json:
                    print(json.dumps(found | ({"pass": reached} if options.check else {})), flush=True)
                else:
                    print(line(found), *([verdict(found)] if options.check else []), sep="\n", flush=True)
    except KeyboardInterrupt:
        return 130
    return int(missed and options.check)


if __name__ == "__main__":
    sys.exit(main())
