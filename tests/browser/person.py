"""Somebody at the web page: what they do, and where they look."""

import contextlib
import re
from collections.abc import AsyncIterator

from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

__all__ = ["PASSWORD", "Person", "person"]

PASSWORD = "correct horse battery"
_OWN_ID = """() => new Promise((resolve) => {
  indexedDB.open("duet").onsuccess = ({target}) => {
    const request = target.result.transaction("values").objectStore("values").get("session");
    request.onsuccess = () => resolve(request.result.user.id);
  };
})"""

_OUTBOX = """() => new Promise((resolve) => {
  indexedDB.open("duet").onsuccess = ({target}) => {
    const request = target.result.transaction("outbox").objectStore("outbox").getAll();
    request.onsuccess = () => resolve(request.result.map((entry) => entry.kind));
  };
})"""

_LEAVE_IN_OUTBOX = """(entry) => new Promise((resolve) => {
  indexedDB.open("duet").onsuccess = ({target}) => {
    const transaction = target.result.transaction("outbox", "readwrite");
    transaction.objectStore("outbox").put(entry);
    transaction.oncomplete = resolve;
  };
})"""


class Person:
    """A tab of a browser; `errors` is what its console complained about."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                self.errors.append(message.text)
                if message.type == "error" and "Content Security Policy" in message.text
                else None
            ),
        )

    @property
    def context(self) -> BrowserContext:
        """The browser profile that the tab belongs to."""
        return self.page.context

    async def another_tab(self) -> "Person":
        """Open the page once more in the same browser profile."""
        tab = Person(await self.context.new_page(), self.url)
        await tab.page.goto(self.url)
        return tab

    async def sign_up(self, username: str, name: str = "") -> None:
        """Make an account and wait until one is in."""
        await self.page.goto(self.url)
        await self.page.get_by_label("Username").fill(username)
        if name:
            await self.page.get_by_label("Your name").fill(name)
        await self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        await self.page.get_by_role("button", name="Create account").click()
        await self.is_in()

    async def log_in(self, username: str) -> None:
        """Log in and wait until one is in."""
        await self.page.goto(self.url)
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.get_by_label("Username").fill(username)
        await self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        await self.page.get_by_role("button", name="Log in").click()
        await self.is_in()

    async def is_in(self) -> None:
        """Wait until the conversations are shown."""
        await expect(self.page.get_by_role("searchbox")).to_be_visible()

    async def find(self, username: str) -> None:
        """Look somebody up and open the conversation."""
        await self.page.get_by_role("searchbox").fill(username)
        await self.page.locator(f'.hit[data-user="{username}"]').click()
        await expect(self.composer).to_be_visible()

    async def open(self, username: str) -> None:
        """Open a conversation of the list."""
        await self.entry(username).click()
        await expect(self.composer).to_be_visible()

    async def write(self, text: str) -> None:
        """Write a message and send it."""
        await self.composer.fill(text)
        await self.page.get_by_role("button", name="Send").click()

    async def menu(self, text: str, item: str) -> None:
        """Choose from the menu of a message."""
        row = self.message(text)
        await row.hover()
        await row.get_by_role("button", name="Message options").click()
        await self.page.get_by_role("menuitem", name=item).click()

    async def settings(self, section: str) -> Locator:
        """Open a section of the settings. Returns its panel."""
        await self.page.get_by_role("button", name="Settings and profile").click()
        await self.page.get_by_role("tab", name=section).click()
        return self.page.get_by_role("tabpanel")

    @property
    def composer(self) -> Locator:
        """Where one writes."""
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def banner(self) -> Locator:
        """What says that the connection is away."""
        return self.page.locator(".banner")

    def entry(self, username: str) -> Locator:
        """The line of the list for somebody."""
        return self.page.locator(f'.conversation a[data-peer="{username}"]')

    def message(self, text: str) -> Locator:
        """The row of the message with this text."""
        exactly = re.compile(f"^{re.escape(text)}$")
        return self.page.locator(".row").filter(has=self.page.locator(".text", has_text=exactly))

    async def outbox(self) -> list[str]:
        """What kinds of changes the browser profile keeps until they are acknowledged."""
        kinds: list[str] = await self.page.evaluate(_OUTBOX)
        return kinds

    async def leave_in_outbox(self, entry: dict[str, object]) -> None:
        """Put a change there, as a page that is gone would have."""
        await self.page.evaluate(_LEAVE_IN_OUTBOX, entry)

    async def own_id(self) -> str:
        """Who the browser profile is logged in as."""
        return str(await self.page.evaluate(_OWN_ID))

    async def sees(self, text: str, progress: str | None = None) -> None:
        """Wait for a message, and for how far it has come."""
        await expect(self.message(text)).to_have_count(1)
        if progress:
            tick = self.message(text).locator(f'.tick[data-progress="{progress}"]')
            await expect(tick).to_be_visible()

    async def texts(self) -> list[str]:
        """All texts on the screen, in order."""
        return await self.page.locator(".row .text").all_inner_texts()


@contextlib.asynccontextmanager
async def person(browser: Browser, url: str, **options: object) -> AsyncIterator[Person]:
    """Somebody with a browser profile of their own."""
    context = await browser.new_context(locale="en-GB", **options)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    try:
        yield Person(await context.new_page(), url)
    finally:
        await context.close()
