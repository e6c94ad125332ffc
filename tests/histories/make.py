"""Makes golden histories through the decider, with fixed ids and times: `python -m tests.histories.make`. Overwrites none."""

from pathlib import Path

import msgspec

from esexec.domain.state import ExecutionState
from esexec.results import result_of
from tests.given import History, given
from tests.histories.kinds import KINDS

EXECUTION = "e1"


def history_of(kind: str) -> History:
    story, around = KINDS[kind]
    return given(*story, around=around)


def picture(state: ExecutionState) -> bytes:
    """All that can be seen of an execution, as JSON."""
    return msgspec.json.format(msgspec.json.encode(result_of(state), order="sorted"), indent=1) + b"\n"


def main() -> None:
    here = Path(__file__).parent
    for kind in KINDS:
        file, history = here / f"{kind}.jsonl", history_of(kind)
        assert history.state.ended, f"{kind} has no end"
        if not file.exists():
            file.write_bytes(b"".join(one.data + b"\n" for one in history.stored))
            file.with_suffix(".json").write_bytes(picture(history.state))


if __name__ == "__main__":
    main()
