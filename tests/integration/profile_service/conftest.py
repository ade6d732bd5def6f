"""One running service for all tests of a module: each brings its own people."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.profile_service import RunningService, fast_settings, running_service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningService]:
    async with running_service(fast_settings(tmp_path_factory.mktemp("profile"))) as running:
        yield running
