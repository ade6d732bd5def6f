"""What both stacks are tried with: a client for REST, and two people."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.compose.people import Person, sign_up
from tests.compose.stack import ScaleStack, Stack


@pytest.fixture
async def http(stack: Stack | ScaleStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.http_url, trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture
async def alice(http: httpx.AsyncClient) -> Person:
    return await sign_up(http, "alice")


@pytest.fixture
async def bob(http: httpx.AsyncClient) -> Person:
    return await sign_up(http, "bob")
