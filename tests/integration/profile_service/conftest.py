"""One running service for all tests of a module, on each engine: each brings its own people."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.profile_postgres import migrated_url
from tests.support.profile_service import RunningService, fast_settings, running_service


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    changes: dict[str, Any] = {}
    if request.param == "postgresql":
        changes["database_url"] = migrated_url(request.getfixturevalue("postgres_databases"))
    settings = fast_settings(tmp_path_factory.mktemp("profile"), **changes)
    async with running_service(settings) as running:
        yield running
