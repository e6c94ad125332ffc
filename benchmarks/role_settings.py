"""What a process of a benchmark is told on its command line."""

import msgspec


class Settings(msgspec.Struct):
    """`kind`: `engine` or `raw`. `script`: the file that raw replays. `slots`: how many attempts a worker has in hand."""

    kind: str
    role: str
    url: str
    slots: int = 100
    script: str = ""
    workload: str = "w1"
