"""The pytest plugin of esexec: the fixture `esexec_engine`. It stands outside of the package, so that nothing else of that is
loaded for tests that do not ask for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from esexec.testing import VirtualEngine


@pytest.fixture
def esexec_engine(request: pytest.FixtureRequest) -> "Iterator[VirtualEngine]":
    """An engine in memory, in virtual time. After the test, unless that failed, histories must verify and faults have hit."""
    from esexec.testing import VirtualEngine

    engine, failed_before = VirtualEngine(), request.session.testsfailed
    yield engine
    try:
        engine.close(check=request.session.testsfailed == failed_before)
    except AssertionError as error:
        pytest.fail(str(error), pytrace=False)
