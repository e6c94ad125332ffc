"""A test kit: the engine in memory, in virtual time, for tests of plans. Needs no server, and no pytest.

With pytest installed its plugin gives the fixture `esexec_engine`.
"""

from esexec.testing.engine import VirtualEngine
from esexec.testing.faults import Stub
from esexec.testing.then import Then

__all__ = ["Stub", "Then", "VirtualEngine"]
