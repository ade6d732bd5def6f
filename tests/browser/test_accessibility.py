"""The page for people who use a keyboard, a screen reader, or a small screen."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.backstage import connected, hold_answers, say, sign_up
from tests.browser.conftest import NewPerson, ann_and_bob, ann_who_wrote_to_bob
from tests.browser.person import PASSWORD, Person
from tests.browser.stack import Stack

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = ("serious", "critical")
VIEWS: list[dict[str, Any]] = [
    {"color_scheme": "light"},
    {"color_scheme": "dark"},
    {"color_scheme": "light", "viewport": {"width": 390, "height": 780}, "has_touch": True},
]

needs_axe = pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is not installed: npm ci --prefix tests/browser"
)


async def serious_faults(page: Page) -> list[str]:
    """What axe-core finds that would keep somebody out."""
    await page.evaluate(
        "() => Promise.all(document.getAnimations().filter((a) => "
        "a.effect.getComputedTiming().endTime < 1e5).map((a) => a.finished))"
    )
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']} ({fault['impact']}): "
        + "; ".join(f"{node['target']} {node['failureSummary']}" for node in fault["nodes"])
        for fault in found["violations"]
        if fault["impact"] in SERIOUS
    ]


@needs_axe
@pytest.mark.parametrize("view", VIEWS, ids=["light", "dark", "phone"])
async def test_axe_finds_no_serious_fault(
    new_person: NewPerson, stack: Stack, view: dict[str, Any]
) -> None:
    ann = await new_person(**view)
    await ann.page.goto(ann.url)
    await ann.page.get_by_label("Password", exact=True).fill("qwertyuiop")
    assert await serious_faults(ann.page) == []
    await ann.sign_up("ann", "Ann Ahl")
    assert await serious_faults(ann.page) == []
    bob = await sign_up(stack, "bob", display_name="Bob Berg", status_text="afloat")
    await say(stack, bob, await ann.own_id(), ["hello", "https://example.invalid/ look", "🎉"])
    async with connected(stack, bob):
        await expect(ann.entry("bob").locator(".badge")).to_contain_text("3")
        assert await serious_faults(ann.page) == []
        await ann.open("bob")
        await ann.write("hi Bob")
        await ann.sees("hi Bob", "sent")
        assert await serious_faults(ann.page) == []
    await ann.page.locator(".person-button").click()
    assert await serious_faults(ann.page) == []
    await ann.page.keyboard.press("Escape")
    if "viewport" in view:
        await ann.page.get_by_role("button", name="Back to the list").click()
    await ann.page.get_by_role("searchbox").fill("hello")
    await expect(ann.page.locator(".hit")).to_be_visible()
    assert await serious_faults(ann.page) == []
    for section in ("Profile", "Appearance and privacy", "Devices", "Blocked people", "Account"):
        if section == "Profile":
            await ann.settings(section)
        else:
            await ann.page.get_by_role("tab", name=section).click()
        await expect(ann.page.get_by_text("Loading…")).to_have_count(0)
        assert await serious_faults(ann.page) == [], section


@needs_axe
async def test_axe_finds_no_serious_fault_offline(new_person: NewPerson, stack: Stack) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    await sign_up(stack, "bob")
    await ann.find("bob")
    await stack.stop_gateway()
    await ann.write("later")
    await expect(ann.banner).to_be_visible()
    assert await serious_faults(ann.page) == []


async def test_everything_can_be_done_with_the_keyboard(
    new_person: NewPerson, stack: Stack
) -> None:
    await sign_up(stack, "bob", display_name="Bob Berg")
    ann = await new_person()
    keyboard = ann.page.keyboard
    await ann.page.goto(ann.url)
    await expect(ann.page.get_by_label("Username")).to_be_focused()
    await keyboard.type("ann")
    await keyboard.press("Tab")
    await keyboard.press("Tab")
    await keyboard.type(PASSWORD)
    await keyboard.press("Enter")
    await ann.is_in()
    await keyboard.press("Control+k")
    await keyboard.type("bob")
    await expect(ann.page.locator(".hit")).to_be_visible()
    await keyboard.press("ArrowDown")
    await keyboard.press("Enter")
    await expect(ann.composer).to_be_focused()
    await keyboard.type("no hand on the mouse")
    await keyboard.press("Enter")
    await ann.sees("no hand on the mouse", "sent")
    await keyboard.press("Shift+Tab")
    await expect(ann.page.locator(".thread-scroll")).to_be_focused()
    await keyboard.press("ArrowUp")
    await expect(ann.message("no hand on the mouse")).to_be_focused()
    await keyboard.press("Enter")
    await expect(ann.page.get_by_role("menuitem", name="Copy text")).to_be_focused()
    await keyboard.press("ArrowDown")
    await keyboard.press("Enter")
    await expect(ann.composer).to_have_value("no hand on the mouse")
    await keyboard.press("Escape")
    await expect(ann.composer).to_have_value("")


async def test_new_message_is_announced(new_person: NewPerson, stack: Stack) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    bob = await sign_up(stack, "bob")
    await say(stack, bob, await ann.own_id(), ["knock"])
    await ann.open("bob")
    await say(stack, bob, await ann.own_id(), ["knock knock"])
    await expect(ann.page.locator("#announcer")).to_have_text("knock knock")


async def test_phone_shows_one_thing_at_a_time(new_person: NewPerson, stack: Stack) -> None:
    ann = await new_person(viewport={"width": 360, "height": 740})
    await ann.sign_up("ann")
    await sign_up(stack, "bob")
    await ann.find("bob")
    await expect(ann.page.get_by_role("searchbox")).to_be_hidden()
    assert await _fits(ann)
    await ann.write("x" * 500)
    assert await _fits(ann)
    await ann.page.go_back()
    await expect(ann.page.get_by_role("searchbox")).to_be_visible()
    await expect(ann.composer).to_be_hidden()
    assert await _fits(ann)
    await ann.settings("Devices")
    assert await _fits(ann)


async def test_long_name_leaves_the_composer_one_line_high(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person(viewport={"width": 360, "height": 740})
    await ann.sign_up("ann")
    heights = []
    for username, name in (("bob", "Bob"), ("bartholomew", "Bartholomew" * 5)):
        await sign_up(stack, username, display_name=name)
        await ann.page.goto(f"{ann.url}/#/{username}")
        await expect(ann.composer).to_have_attribute("placeholder", f"Message {name}")
        await ann.composer.fill("")
        heights.append(await ann.composer.evaluate("(composer) => composer.offsetHeight"))
    assert heights[0] == heights[1]


async def _fits(somebody: Person) -> bool:
    """Whether nothing hangs over the edge."""
    fits: bool = await somebody.page.evaluate(
        "() => document.documentElement.scrollWidth <= innerWidth"
    )
    return fits


async def test_focus_stays_on_a_conversation_that_is_drawn_anew_and_moves_up(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    me = await ann.own_id()
    people = {name: await sign_up(stack, name) for name in ("bob", "cem")}
    for granted in people.values():
        await say(stack, granted, me, ["hello"])
    await expect(ann.entry("cem").locator(".badge")).to_contain_text("1")
    await ann.page.get_by_role("searchbox").focus()
    await ann.page.keyboard.press("ArrowDown")
    await ann.page.keyboard.press("ArrowDown")
    await expect(ann.entry("bob")).to_be_focused()
    await say(stack, people["bob"], me, ["are you there?"])
    await expect(ann.entry("bob").locator(".badge")).to_contain_text("2")
    await expect(ann.page.locator(".conversation a").first).to_be_focused()
    await ann.page.keyboard.press("ArrowDown")
    await expect(ann.entry("cem")).to_be_focused()


async def test_focus_and_menu_stay_at_a_message_that_is_drawn_anew(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, bob = await ann_and_bob(new_person)
    await ann.write("see https://example.invalid/ for more")
    await ann.sees("see https://example.invalid/ for more", "delivered")
    row = ann.page.locator(".row")
    await row.get_by_role("link").focus()
    await bob.open("ann")
    await ann.sees("see https://example.invalid/ for more", "read")
    await expect(row.get_by_role("link")).to_be_focused()
    await bob.page.evaluate("location.hash = ''")
    await ann.write("second")
    await ann.sees("second", "delivered")
    button = ann.message("second").get_by_role("button", name="Message options")
    await button.focus()
    await ann.page.keyboard.press("Enter")
    await expect(ann.page.get_by_role("menuitem", name="Copy text")).to_be_focused()
    await bob.open("ann")
    await bob.write("third")
    await ann.sees("second", "read")
    await ann.sees("third")
    await expect(ann.page.get_by_role("menuitem", name="Copy text")).to_be_focused()
    assert await _gap_between(ann.page.locator(".menu"), button) < 10
    await ann.page.keyboard.press("Escape")
    await expect(button).to_be_focused()


async def test_menu_closes_when_its_message_is_deleted(new_person: NewPerson, stack: Stack) -> None:
    ann, _ = await ann_who_wrote_to_bob(new_person, stack, "to be deleted")
    phone = await new_person(viewport={"width": 390, "height": 780})
    await ann.message("to be deleted").focus()
    await ann.page.keyboard.press("Enter")
    await expect(ann.page.get_by_role("menuitem", name="Edit")).to_be_visible()
    await phone.log_in("ann")
    await phone.open("bob")
    await phone.menu("to be deleted", "Delete for both")
    await expect(ann.page.get_by_role("menu")).to_be_hidden()
    await expect(ann.message("Message deleted")).to_be_focused()


async def test_focus_stays_on_a_person_who_is_found_before_the_messages(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person()
    searches = await hold_answers(ann.page, stack, "search")
    await ann.sign_up("ann")
    bob = await sign_up(stack, "bob")
    await say(stack, bob, await ann.own_id(), ["this is bob"])
    await ann.page.get_by_role("searchbox").fill("bob")
    person = ann.page.locator(".hit[data-user='bob']")
    await expect(person).to_be_visible()
    release = await searches.get()
    await ann.page.keyboard.press("ArrowDown")
    await expect(person).to_be_focused()
    release()
    await expect(ann.page.locator(".hit[data-seq='1']")).to_be_visible()
    await expect(person).to_be_focused()


async def test_focus_is_where_one_writes_after_an_edit_is_sent_or_given_up(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, _ = await ann_who_wrote_to_bob(new_person, stack, "helo")
    await ann.menu("helo", "Edit")
    await ann.page.get_by_role("button", name="Cancel editing").click()
    await expect(ann.composer).to_be_focused()
    await ann.menu("helo", "Edit")
    await ann.write("hello")
    await ann.sees("hello")
    await expect(ann.composer).to_be_focused()


async def _gap_between(one: Locator, other: Locator) -> float:
    """How many pixels lie between two things, one above the other."""
    boxes = [await place.bounding_box() for place in (one, other)]
    (top, height), (below, _) = sorted((box["y"], box["height"]) for box in boxes if box)
    return below - top - height
