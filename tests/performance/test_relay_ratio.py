"""Duet must not fall behind the bare relay unnoticed: docs/performance.md has its real distance."""

import os
import shutil
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("picows", reason="the load generator is missing: `make check` installs it")
if sys.platform != "linux" or shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
    pytest.skip("needs Linux with two cores and taskset", allow_module_level=True)

from tests.performance.relay_ratio import Comparison, comparison

_TRIES = 5


@pytest.fixture(scope="module")
def compared() -> Iterator[Comparison]:
    with comparison() as both:
        yield both


@pytest.mark.parametrize(("window", "at_least"), [(20, 1.0), (1, 0.5)])
def test_duet_moves_its_share_of_the_relays_messages_for_a_second_of_processor(
    compared: Comparison, window: int, at_least: float
) -> None:
    ratios: list[float] = []
    while max(ratios, default=0) < at_least and len(ratios) < _TRIES:
        ratios.append(compared.ratio(window))
    assert max(ratios) >= at_least, f"{window} in flight each: {ratios} times the bare relay"
