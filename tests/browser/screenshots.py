"""Make the pictures of docs/images: `make screenshots`, or `python -m tests.browser.screenshots`.

They show the page as it is, with both real services behind it. The fonts are this machine's; with
Debian's `fonts-inter` and `fonts-noto-color-emoji` they look as they were meant to.
"""

import asyncio
import contextlib
import datetime
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from playwright.async_api import Browser, ViewportSize, expect

from tests.browser.backstage import Granted, ask, connected, profile, say, set_times, sign_up
from tests.browser.person import Person, person
from tests.browser.stack import Stack, chromium, chromium_path, running_stack

IMAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "images"
WIDE = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=390, height=780)
LOCAL_HOUR = 18
_SETTLED = """async () => {
  await Promise.all([...document.images].map((image) => image.decode()));
  await Promise.all(document.getAnimations().map((animation) => animation.finished));
}"""
DAY_MS = 86_400_000

PEOPLE = {
    "jonas": ("Jonas Weber", "tide", "In Ghent until Friday"),
    "amara": ("Amara Okafor", "ember", ""),
    "tomas": ("Tomás Rivera", "", "On a very slow train"),
    "priya": ("Priya Nair", "orchid", ""),
    "elif": ("Elif Demir", "", ""),
    "noah": ("Noah Fischer", "slate", ""),
}

# (who, days ago, time of day, text); "me" is the one who looks.
JONAS: list[tuple[str, int, str, str]] = [
    ("jonas", 1, "21:04", "Home at last. The tram stood still for half an hour at the canal"),
    ("jonas", 1, "21:04", "Thank you for dinner 🍝"),
    ("me", 1, "21:10", "Any time! Did you keep the recipe?"),
    ("jonas", 1, "21:12", "Of course. Framed it."),
    ("me", 0, "16:31", "Are we still on for Saturday?"),
    ("jonas", 0, "16:40", "Yes – I have the keys to the rehearsal room from ten."),
    (
        "jonas",
        0,
        "16:41",
        "Bring the cello: I found the duet we were looking for",
    ),
    ("me", 0, "16:44", "You did not! Where?"),
    ("jonas", 0, "16:45", "https://imslp.org/wiki/Duo_(Offenbach)"),
    ("jonas", 0, "16:46", "Second movement is a little mean. I like it."),
    ("me", 0, "17:02", "Printing it now. See you on Saturday, and no more trams"),
    ("me", 0, "17:02", "🎻"),
]
OTHERS: list[tuple[str, str, int, str, str]] = [
    ("noah", "them", 6, "10:20", "Thanks, that worked on the first try"),
    ("elif", "me", 3, "14:02", "Got it, the draft is with you by Thursday"),
    ("priya", "them", 1, "19:30", "Look what grew on the balcony!"),
    ("tomas", "me", 0, "09:12", "Take the window seat on the left, it is worth it"),
    ("amara", "them", 0, "17:26", "Two things before I forget"),
    ("amara", "them", 0, "17:26", "The tickets are in your inbox"),
    ("amara", "them", 0, "17:27", "and my sister says hello"),
]


async def main() -> None:
    """Fill a conversation, look at it three ways, and save what is seen."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with running_stack(Path(folder)) as stack, chromium() as browser:
            people = await _cast(stack)
            await _write(stack, people)
            async with contextlib.AsyncExitStack() as lively:
                for name in ("jonas", "amara", "priya"):
                    await lively.enter_async_context(connected(stack, people[name]))
                await _wide(browser, stack, people, "light", IMAGES / "chat-light.png")
                await _wide(browser, stack, people, "dark", IMAGES / "chat-dark.png")
                await _phone(browser, stack, people, IMAGES / "phone.png")
    for image in sorted(IMAGES.glob("*.png")):
        sys.stdout.write(f"{image}: {image.stat().st_size // 1024} KiB\n")


async def _cast(stack: Stack) -> dict[str, Granted]:
    people = {"me": await sign_up(stack, "maya", display_name="Maya Lindqvist")}
    await profile(stack, people["me"], avatar_url=f"{stack.url}/avatars/dawn.svg")
    for username, (name, picture, status) in PEOPLE.items():
        fields = {"display_name": name}
        if picture:
            fields["avatar_url"] = f"{stack.url}/avatars/{picture}.svg"
        if status:
            fields["status_text"] = status
        people[username] = await sign_up(stack, username, **fields)
    return people


async def _write(stack: Stack, people: dict[str, Granted]) -> None:
    """Say everything now, then say that it was said before."""
    said = list(OTHERS)
    said[4:4] = [("jonas", who, days, clock, text) for who, days, clock, text in JONAS]
    times: dict[str, int] = {}
    for other, who, days, clock, text in said:
        sender, to = ("me", other) if who == "me" else (other, "me")
        ((client_id, seq),) = await say(stack, people[sender], people[to]["user"]["id"], [text])
        times[client_id] = _at_ms(days, clock)
        if other != "amara":
            await _read(stack, people[to], people[sender], seq)
    await stack.stop_gateway()
    set_times(stack.data_dir / "messages.db", times)
    await stack.start_gateway()


async def _read(stack: Stack, reader: Granted, writer: Granted, seq: int) -> None:
    async with connected(stack, reader) as websocket:
        asked = {"type": "history", "id": "h", "with": writer["user"]["id"], "limit": 1}
        page = await ask(websocket, asked)
        mark = {"type": "read", "id": "r", "conversation": page["conversation"], "seq": seq}
        await ask(websocket, mark)


async def _wide(
    browser: Browser, stack: Stack, people: dict[str, Granted], scheme: Any, path: Path
) -> None:
    options = {"viewport": WIDE, "color_scheme": scheme, "timezone_id": _timezone()}
    async with person(browser, stack.url, **options) as maya:
        await maya.log_in("maya")
        await maya.open("jonas")
        await _everything_is_there(maya)
        async with connected(stack, people["priya"]) as websocket:
            typing = {"type": "typing", "to": people["me"]["user"]["id"], "active": True}
            await websocket.send(msgspec.json.encode(typing).decode())
            await expect(maya.page.locator(".preview.is-typing")).to_be_visible()
            await maya.page.screenshot(path=path)


async def _phone(browser: Browser, stack: Stack, people: dict[str, Granted], path: Path) -> None:
    options = {
        "viewport": PHONE,
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
        "timezone_id": _timezone(),
    }
    async with person(browser, stack.url, **options) as maya:
        await maya.log_in("maya")
        await maya.open("jonas")
        await _everything_is_there(maya)
        await maya.page.screenshot(path=path)


async def _everything_is_there(maya: Person) -> None:
    await maya.sees("🎻", "read")
    await expect(maya.page.locator(".thread-head .status")).to_have_text("online")
    await maya.page.evaluate(_SETTLED)


def _timezone() -> str:
    """One where it is early evening, so that the times make sense."""
    ahead = (LOCAL_HOUR - datetime.datetime.now(datetime.UTC).hour + 12) % 24 - 12
    return f"Etc/GMT{-ahead:+d}"  # the sign of these names is the other way round


def _at_ms(days_ago: int, clock: str) -> int:
    hour, minute = map(int, clock.split(":"))
    now = datetime.datetime.now(datetime.UTC)
    local_now_ms = time.time_ns() // 1_000_000 - (now.minute * 60 + now.second) * 1000
    return local_now_ms - days_ago * DAY_MS - ((LOCAL_HOUR - hour) * 60 - minute) * 60_000


if __name__ == "__main__":
    if chromium_path() is None:
        sys.exit("Chromium is not installed (Debian, Ubuntu: apt install chromium).")
    asyncio.run(main())
