"""The short form of `make faults-scale`: every fault across nodes, a few tries, on one cluster."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.figures import Plan, table
from tests.scale.catalogue import FAULTS
from tests.scale.cluster import missing, one_cluster_for_all

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    if reason := missing():
        pytest.skip(reason)
    async with one_cluster_for_all(tmp_path_factory.mktemp("cluster")):
        yield


@pytest.mark.parametrize("name", sorted(FAULTS))
async def test_fault_across_nodes_loses_nothing(name: str, tmp_path: Path) -> None:
    figures = await FAULTS[name](Plan(tmp_path))
    assert all(figure.passed for figure in figures), "\n" + table(figures)
