"""The page of docs/examples, in a browser, behind the proxy of the guide."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, expect

from tests.support.embedding import Embedded, embedded, proxy_path


@pytest.mark.skipif(proxy_path("nginx") is None, reason="nginx is not installed")
async def test_two_of_the_products_people_talk_on_its_own_page(
    browser: Browser, tmp_path: Path
) -> None:
    async with embedded(tmp_path, "nginx") as shop:
        ann, bob = [await enter(browser, shop, login) for login in ("ann", "bob")]
        await say(ann, "bob", "is the blue one still there?")
        await expect(bob.pages[0].get_by_text("them: is the blue one still there?")).to_be_visible()
        await say(bob, "ann", "it is")
        await expect(ann.pages[0].get_by_text("them: it is")).to_be_visible()

        await bob.pages[0].reload()
        await expect(bob.pages[0].get_by_role("status")).to_have_text("bob: open")
        await bob.pages[0].goto(f"{shop.origin}/login/ann")
        await expect(bob.pages[0].get_by_role("status")).to_have_text("ann: open")
        await say(ann, "bob", "bye")
        await expect(bob.pages[0].get_by_text("ann: bye")).to_be_visible()
        for context in (ann, bob):
            await context.close()


async def enter(browser: Browser, shop: Embedded, login: str) -> BrowserContext:
    """Sign in at the product, in a browser profile of one's own."""
    context = await browser.new_context(ignore_https_errors=True)
    page = await context.new_page()
    await page.goto(shop.origin)
    await expect(page.get_by_role("status")).to_contain_text("Sign in at /login/ann")
    await page.goto(f"{shop.origin}/login/{login}")
    await expect(page.get_by_role("status")).to_have_text(f"{login}: open")
    return context


async def say(context: BrowserContext, to: str, text: str) -> None:
    page = context.pages[0]
    await page.get_by_label("To").fill(to)
    await page.get_by_label("Text").fill(text)
    await page.get_by_role("button", name="Send").click()
