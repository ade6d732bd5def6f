"""The short form of `make faults`: every fault, a few tries, on real processes."""

from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.figures import Plan, table

_ELSEWHERE = {"schemathesis"}
"""tests/integration/profile_service/test_openapi.py does the same within pytest."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(set(FAULTS) - _ELSEWHERE))
async def test_fault_loses_nothing_and_passes(name: str, tmp_path: Path) -> None:
    figures = await FAULTS[name](Plan(tmp_path))
    if skipped := [figure.skipped for figure in figures if figure.skipped]:
        pytest.skip("; ".join(skipped))
    assert all(figure.passed for figure in figures), "\n" + table(figures)
