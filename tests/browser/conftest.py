"""Browser tests: both real services, and Debian's Chromium in front of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.browser.backstage import sign_up
from tests.browser.person import Person, person
from tests.browser.stack import Stack, chromium, chromium_path, running_stack

HERE = Path(__file__).parent

NewPerson = Callable[..., Awaitable[Person]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Chromium, and is skipped where it is not installed."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if chromium_path() is None:
                reason = "Chromium is not installed (Debian, Ubuntu: apt install chromium)"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def settings() -> dict[str, str]:
    """Environment variables of both services; a test file may have others."""
    return {}


@pytest.fixture
async def stack(tmp_path: Path, settings: dict[str, str]) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, **settings) as running:
        yield running


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest.fixture
async def new_person(stack: Stack, browser: Browser) -> AsyncIterator[NewPerson]:
    """Make somebody with a browser profile of their own; at the end, nothing went wrong in it."""
    everybody: list[Person] = []
    async with AsyncExitStack() as contexts:

        async def make(**options: Any) -> Person:
            somebody = await contexts.enter_async_context(person(browser, stack.url, **options))
            everybody.append(somebody)
            return somebody

        yield make
    for somebody in everybody:
        assert somebody.errors == []


async def ann_who_wrote_to_bob(
    new_person: NewPerson, stack: Stack, text: str
) -> tuple[Person, dict[str, Any]]:
    """Ann at the page, who has sent that text to Bob; and what Bob, who has none, was granted."""
    ann = await new_person()
    await ann.sign_up("ann")
    bob = await sign_up(stack, "bob")
    await ann.find("bob")
    await ann.write(text)
    await ann.sees(text, "sent")
    return ann, bob


async def ann_and_bob(new_person: NewPerson) -> tuple[Person, Person]:
    """Two people with a page each; Ann has found Bob."""
    ann, bob = await new_person(), await new_person()
    await ann.sign_up("ann")
    await bob.sign_up("bob")
    await ann.find("bob")
    return ann, bob
