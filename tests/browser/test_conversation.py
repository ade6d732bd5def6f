"""Two people at the page, talking through both real services."""

import asyncio
import re
from pathlib import Path

from playwright.async_api import Route, expect

from tests.browser.backstage import ask, connected, say, sign_up
from tests.browser.conftest import NewPerson, ann_and_bob, ann_who_wrote_to_bob
from tests.browser.person import Person
from tests.browser.stack import Stack, chromium_that_stores_nothing


async def ann_with_bob_and_cem(new_person: NewPerson, stack: Stack) -> Person:
    """Ann at the page, to whom two others have written."""
    ann = await new_person()
    await ann.sign_up("ann")
    for name in ("bob", "cem"):
        await say(stack, await sign_up(stack, name), await ann.own_id(), ["hello"])
    return ann


async def test_message_is_sent_then_delivered_then_read(new_person: NewPerson) -> None:
    ann, bob = await new_person(), await new_person()
    await bob.sign_up("bob", "Bob Berg")
    await bob.page.goto("about:blank")
    await ann.sign_up("ann", "Ann Ahl")
    await ann.find("bob")
    await ann.write("Are you there?")
    await ann.sees("Are you there?", "sent")
    await bob.page.goto(bob.url)
    await expect(bob.entry("ann").locator(".badge")).to_contain_text("1")
    await expect(bob.page).to_have_title("(1) Duet")
    await ann.sees("Are you there?", "delivered")
    await bob.open("ann")
    await bob.sees("Are you there?")
    await ann.sees("Are you there?", "read")
    await expect(bob.page).to_have_title("Duet")
    await bob.write("Here I am")
    await ann.sees("Here I am")
    await bob.sees("Here I am", "read")
    assert await ann.texts() == await bob.texts() == ["Are you there?", "Here I am"]


async def test_password_is_judged_while_it_is_typed_and_by_the_server(
    new_person: NewPerson,
) -> None:
    ann = await new_person()
    await ann.page.goto(ann.url)
    password = ann.page.get_by_label("Password", exact=True)
    await ann.page.get_by_label("Username").fill("ann")
    await password.fill("password1")
    await expect(ann.page.locator(".verdict")).to_contain_text("Easy to guess")
    await ann.page.get_by_role("button", name="Create account").click()
    await expect(password).to_have_attribute("aria-invalid", "true")
    await expect(ann.page.locator("#fault-password")).to_contain_text("common password")
    await password.fill("correct horse battery")
    await expect(ann.page.locator(".verdict")).to_have_text("Strong")
    await ann.page.get_by_role("button", name="Create account").click()
    await ann.is_in()


async def test_username_that_is_taken_is_said_at_its_field(new_person: NewPerson) -> None:
    ann, other = await new_person(), await new_person()
    await ann.sign_up("ann")
    await other.page.goto(other.url)
    await other.page.get_by_label("Username").fill("Ann")
    await other.page.get_by_label("Password", exact=True).fill("correct horse battery")
    await other.page.get_by_role("button", name="Create account").click()
    await expect(other.page.locator("#fault-username")).to_contain_text("taken")
    await expect(other.page.get_by_label("Username")).to_be_focused()


async def test_presence_and_typing_are_seen(new_person: NewPerson) -> None:
    ann, bob = await ann_and_bob(new_person)
    await ann.write("hello")
    await bob.open("ann")
    status = bob.page.locator(".thread-head .status")
    await expect(status).to_have_text("online")
    await ann.composer.press_sequentially("I am about to s")
    await expect(status).to_have_text("typing…")
    await ann.composer.fill("")
    await expect(status).to_have_text("online")


async def test_edit_and_deletion_reach_the_other_side(new_person: NewPerson) -> None:
    ann, bob = await ann_and_bob(new_person)
    await ann.write("helo")
    await bob.open("ann")
    await bob.sees("helo")
    await ann.composer.press("ArrowUp")
    await expect(ann.composer).to_have_value("helo")
    await ann.write("hello")
    await bob.sees("hello")
    await expect(bob.message("hello").locator(".meta")).to_contain_text("edited")
    await ann.menu("hello", "Delete for both")
    await bob.sees("Message deleted")
    await ann.sees("Message deleted")


async def test_search_finds_a_message_and_goes_there(new_person: NewPerson) -> None:
    ann, bob = await new_person(), await new_person()
    await bob.sign_up("bob")
    await ann.sign_up("ann")
    await ann.find("bob")
    for text in ("the harvest was good", "and so was the music"):
        await ann.write(text)
        await ann.sees(text, "delivered")
    await ann.page.get_by_role("searchbox").fill("harvest")
    hit = ann.page.locator(".hit[data-seq='1']")
    await expect(hit.locator("mark")).to_have_text("harvest")
    await hit.click()
    await expect(ann.message("the harvest was good")).to_be_focused()


async def test_enter_opens_what_is_found_first(new_person: NewPerson, stack: Stack) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    await sign_up(stack, "bob")
    search = ann.page.get_by_role("searchbox")
    await search.fill("nobody at all")
    await search.press("Enter")
    await search.fill("bob")
    await search.press("Enter")
    await expect(ann.page.locator(".thread-head .name")).to_have_text("bob")
    await expect(ann.composer).to_be_visible()


async def test_search_finds_what_was_said_in_a_conversation_far_down_the_list(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    me = await ann.own_id()
    for number in range(52):
        await say(stack, await sign_up(stack, f"person-{number}"), me, [f"harvest {number}"])
    await ann.page.reload()
    await expect(ann.entry("person-51")).to_be_visible()
    assert await ann.entry("person-0").count() == 0
    await ann.page.get_by_role("searchbox").fill("harvest 0")
    hit = ann.page.locator(".hit").filter(has_text="harvest 0")
    await expect(hit.locator(".name")).to_have_text("person-0")
    await hit.click()
    await expect(ann.message("harvest 0")).to_be_focused()


async def test_blocked_person_is_told_that_nothing_was_sent(new_person: NewPerson) -> None:
    ann, bob = await new_person(), await new_person()
    await ann.sign_up("ann")
    await bob.sign_up("bob")
    await bob.find("ann")
    await bob.page.get_by_title("About this person").click()
    await bob.page.get_by_role("button", name="Block", exact=True).click()
    await expect(bob.page.get_by_role("button", name="Unblock").first).to_be_visible()
    await ann.find("bob")
    await ann.write("hello?")
    await ann.sees("hello?", "failed")
    await bob.page.locator("dialog").get_by_role("button", name="Unblock").click()
    await expect(
        bob.page.locator("dialog").get_by_role("button", name="Block", exact=True)
    ).to_be_visible()
    await ann.message("hello?").get_by_role("button", name="Try again").click()
    await ann.sees("hello?", "read")


async def test_two_tabs_show_the_same_and_clear_each_others_badges(
    new_person: NewPerson,
) -> None:
    ann, bob = await new_person(), await new_person()
    await ann.sign_up("ann")
    await bob.sign_up("bob")
    tab = await bob.another_tab()
    await tab.is_in()
    await ann.find("bob")
    await ann.write("to both of your tabs")
    await expect(bob.entry("ann").locator(".badge")).to_contain_text("1")
    await expect(tab.entry("ann").locator(".badge")).to_contain_text("1")
    await tab.open("ann")
    await tab.sees("to both of your tabs")
    await expect(bob.entry("ann").locator(".badge")).to_have_count(0)
    await tab.write("from the second")
    await bob.page.bring_to_front()
    await bob.open("ann")
    await bob.sees("from the second")
    assert await bob.texts() == ["to both of your tabs", "from the second"]
    await ann.sees("from the second")


async def test_block_in_one_tab_is_shown_by_the_other(new_person: NewPerson) -> None:
    ann, _ = await ann_and_bob(new_person)
    await ann.write("hello")
    await ann.sees("hello", "delivered")
    tab = await ann.another_tab()
    await tab.open("bob")
    for page in (ann.page, tab.page):
        await page.get_by_title("About this person").click()
        await expect(page.get_by_text("Online now")).to_be_visible()
    await ann.page.get_by_role("button", name="Block", exact=True).click()
    await expect(tab.page.locator("dialog").get_by_role("button", name="Unblock")).to_be_visible()
    for page in (ann.page, tab.page):
        await expect(page.get_by_text("Online now")).to_be_hidden()
    await tab.page.keyboard.press("Escape")
    await expect(tab.page.locator(".thread-foot")).to_contain_text("You block this person.")
    panel = await tab.settings("Blocked people")
    await expect(panel.locator(".name")).to_have_text(["bob"])
    await ann.page.locator("dialog").get_by_role("button", name="Unblock").click()
    await expect(ann.page.get_by_text("Online now")).to_be_visible()
    await expect(panel).to_contain_text("You block nobody.")
    await tab.page.keyboard.press("Escape")
    await expect(tab.composer).to_be_visible()


async def test_preference_that_one_tab_changes_is_shown_by_the_other(
    new_person: NewPerson,
) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    tab = await ann.another_tab()
    switches = [
        (await each.settings("Appearance and privacy")).get_by_role("switch", name="read a message")
        for each in (ann, tab)
    ]
    for here, there in (switches, switches[::-1]):
        for switch in switches:
            await expect(switch).to_be_enabled()
        is_shared = await here.is_checked()
        await here.click()
        await expect(there).to_be_checked(checked=not is_shared)


async def test_profile_with_a_picture_is_seen_by_others(new_person: NewPerson) -> None:
    ann, bob = await new_person(), await new_person()
    await ann.sign_up("ann")
    await bob.sign_up("bob")
    panel = await ann.settings("Profile")
    await panel.get_by_role("radio", name="tide").click()
    await panel.get_by_label("Name").fill("Ann Ahl")
    await panel.get_by_label("Status").fill("at sea")
    await panel.get_by_label("About you").fill("I like boats.\nAnd lakes.")
    await panel.get_by_role("button", name="Save profile").click()
    await expect(panel.get_by_text("Saved.")).to_be_visible()
    await bob.find("ann")
    head = bob.page.locator(".thread-head")
    await expect(head.locator("img")).to_have_attribute("src", "/avatars/tide.svg")
    await expect(head.locator(".name")).to_have_text("Ann Ahl")
    await expect(head.locator(".status")).to_have_text("at sea")
    await bob.page.get_by_title("About this person").click()
    await expect(bob.page.locator(".person-bio")).to_have_text("I like boats.\nAnd lakes.")


async def test_reading_privately_hides_read_marks(new_person: NewPerson) -> None:
    ann, bob = await new_person(), await new_person()
    await ann.sign_up("ann")
    await bob.sign_up("bob")
    panel = await bob.settings("Appearance and privacy")
    switch = panel.get_by_role("switch", name="Show when you have read a message")
    await switch.click()
    await expect(switch).to_be_enabled()
    await expect(switch).not_to_be_checked()
    await bob.page.get_by_role("button", name="Close").click()
    await ann.find("bob")
    await ann.write("first")
    await bob.open("ann")
    await bob.sees("first")
    await bob.write("answer")
    await ann.sees("answer")
    await ann.sees("first", "delivered")


async def test_log_out_everywhere_closes_the_other_device(new_person: NewPerson) -> None:
    laptop, phone = await new_person(), await new_person(viewport={"width": 390, "height": 780})
    await laptop.sign_up("ann")
    await phone.log_in("ann")
    panel = await phone.settings("Devices")
    await expect(panel.locator(".device")).to_have_count(2)
    await panel.get_by_role("button", name="Log out everywhere").click()
    for device in (phone, laptop):
        await expect(device.page.get_by_role("heading", name="Welcome back")).to_be_visible()
    await expect(laptop.page.get_by_text("You have been logged out")).to_be_visible()


async def test_log_out_in_one_tab_leaves_no_other_tab_in(new_person: NewPerson) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    tab = await ann.another_tab()
    await tab.is_in()
    panel = await ann.settings("Devices")
    await panel.get_by_role("button", name="Log out here").click()
    for one in (ann, tab):
        await expect(one.page.get_by_role("heading", name="Welcome back")).to_be_visible()


async def test_colours_follow_the_system_until_one_chooses(new_person: NewPerson) -> None:
    ann = await new_person(color_scheme="dark")
    await ann.sign_up("ann")
    body = ann.page.locator("body")
    await expect(body).to_have_css("background-color", "rgb(19, 18, 21)")
    panel = await ann.settings("Appearance and privacy")
    await panel.get_by_text("Light", exact=True).click()
    await expect(body).to_have_css("background-color", "rgb(244, 241, 236)")
    await ann.page.reload()
    await ann.is_in()
    await expect(body).to_have_css("background-color", "rgb(244, 241, 236)")


async def test_days_are_separated_and_emoji_stand_alone(new_person: NewPerson) -> None:
    ann, _ = await ann_and_bob(new_person)
    await ann.write("🎉")
    await ann.sees("🎉", "delivered")
    await expect(ann.page.locator(".separator.is-day")).to_have_text("Today")
    await expect(ann.message("🎉").locator(".text")).to_have_class(re.compile("is-emoji"))


async def test_end_stays_in_sight_while_the_text_that_is_written_grows(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    bob = await sign_up(stack, "bob")
    await say(stack, bob, await ann.own_id(), [f"line {number}" for number in range(40)])
    await ann.open("bob")
    await expect(ann.message("line 39")).to_be_in_viewport()
    for lines in range(2, 8):
        await ann.composer.fill("\n".join(["line"] * lines))
        await expect(ann.message("line 39")).to_be_in_viewport(ratio=1)
    await say(stack, bob, await ann.own_id(), ["and another"])
    await expect(ann.message("and another")).to_be_in_viewport(ratio=1)
    await ann.composer.fill("")
    await expect(ann.message("and another")).to_be_in_viewport(ratio=1)


async def test_browser_that_stores_nothing_lets_people_in_and_out(
    stack: Stack, tmp_path: Path
) -> None:
    async with chromium_that_stores_nothing(tmp_path / "chromium") as context:
        ann = Person(await context.new_page(), stack.url)
        await ann.sign_up("ann")
        await sign_up(stack, "bob")
        await ann.find("bob")
        await ann.write("kept by the server")
        await ann.sees("kept by the server", "sent")
        panel = await ann.settings("Devices")
        await panel.get_by_role("button", name="Log out here").click()
        await expect(ann.page.get_by_label("Username")).to_be_visible()
        assert ann.errors == []


async def test_conversation_is_opened_again_after_a_search_in_it_on_a_phone(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person(viewport={"width": 390, "height": 780})
    await ann.sign_up("ann")
    bob = await sign_up(stack, "bob")
    await say(stack, bob, await ann.own_id(), ["hello"])
    await ann.open("bob")
    await ann.page.get_by_role("button", name="Search in this conversation").click()
    await ann.page.get_by_role("button", name="End the search").click()
    await ann.open("bob")


async def test_person_whose_details_are_shown_is_the_one_who_is_blocked(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await ann_with_bob_and_cem(new_person, stack)
    await ann.open("bob")
    await ann.open("cem")
    await ann.page.get_by_title("About this person").click()
    await ann.page.go_back()
    await expect(ann.page.locator(".thread-head .name")).to_have_text("bob")
    dialog = ann.page.locator("dialog.person")
    await dialog.get_by_role("button", name="Block", exact=True).click()
    await expect(dialog.get_by_role("button", name="Unblock")).to_be_visible()
    await expect(dialog.locator("#person-name")).to_have_text("cem")
    await ann.page.keyboard.press("Escape")
    panel = await ann.settings("Blocked people")
    await expect(panel.locator(".name")).to_have_text(["cem"])


async def test_composer_is_as_high_as_ever_after_somebody_is_unblocked(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await ann_with_bob_and_cem(new_person, stack)
    await ann.open("bob")
    height = await ann.composer.evaluate("composer => composer.clientHeight")
    await ann.page.get_by_title("About this person").click()
    await ann.page.get_by_role("button", name="Block", exact=True).click()
    await ann.page.keyboard.press("Escape")
    await ann.open("cem")
    await ann.entry("bob").click()
    await ann.page.locator(".thread-foot").get_by_role("button", name="Unblock").click()
    await expect(ann.composer).to_be_visible()
    assert await ann.composer.evaluate("composer => composer.clientHeight") == height


async def test_somebody_who_is_slow_to_look_up_replaces_no_conversation(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    await sign_up(stack, "zed")
    bob = await sign_up(stack, "bob")
    await say(stack, bob, await ann.own_id(), ["hello"])
    await expect(ann.entry("bob")).to_be_visible()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await answer.wait()
        await route.continue_()

    await ann.page.route("**/v1/users/zed", hold)
    await ann.page.evaluate("location.hash = '#/zed'")
    await asked.wait()
    await ann.open("bob")
    async with ann.page.expect_response("**/v1/users/zed") as answered:
        answer.set()
    await (await answered.value).finished()
    await ann.page.evaluate("() => new Promise((resolve) => setTimeout(resolve))")
    await expect(ann.page.locator(".thread-head .name")).to_have_text("bob")
    await ann.write("to you")
    await ann.sees("to you", "sent")
    await expect(ann.entry("bob").locator(".preview")).to_have_text("to you")


async def test_new_text_is_kept_when_the_message_is_deleted_while_it_is_edited(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, _ = await ann_who_wrote_to_bob(new_person, stack, "original")
    phone = await new_person(viewport={"width": 390, "height": 780})
    await ann.composer.press("ArrowUp")
    await ann.composer.fill("a careful improvement")
    await phone.log_in("ann")
    await phone.open("bob")
    await phone.menu("original", "Delete for both")
    await expect(ann.page.get_by_text("The message was deleted.")).to_be_visible()
    await expect(ann.page.locator(".edit-bar")).to_be_hidden()
    await expect(ann.composer).to_have_value("a careful improvement")
    await ann.composer.press("Enter")
    await ann.sees("a careful improvement", "sent")


async def test_refused_edit_is_said_and_its_text_kept_but_not_the_edit(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, bob = await ann_who_wrote_to_bob(new_person, stack, "original")
    async with connected(stack, bob) as websocket:
        await ask(websocket, {"type": "block", "id": "1", "user": await ann.own_id()})
    await ann.composer.press("ArrowUp")
    await ann.write("a careful improvement")
    await expect(ann.page.get_by_text("The message was not changed.")).to_contain_text(
        "This person does not take messages from you. Your text is kept."
    )
    await expect(ann.composer).to_have_value("a careful improvement")
    assert await ann.outbox() == []
    await ann.sees("original")


async def test_edit_that_is_refused_after_the_page_was_closed_leaves_a_draft(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, bob = await ann_who_wrote_to_bob(new_person, stack, "original")
    me = await ann.own_id()
    await stack.stop_gateway()
    await ann.composer.press("ArrowUp")
    await ann.write("written in the dark")
    await expect(ann.page.locator(".edit-bar")).to_be_hidden()
    assert await ann.outbox() == ["edit"]
    await ann.page.goto("about:blank")
    await stack.start_gateway()
    async with connected(stack, bob) as websocket:
        await ask(websocket, {"type": "block", "id": "1", "user": me})
    await ann.page.goto(ann.url)
    await expect(ann.page.get_by_text("bob: The message was not changed.")).to_be_visible()
    assert await ann.outbox() == []
    await ann.open("bob")
    await expect(ann.composer).to_have_value("written in the dark")


async def test_text_that_was_begun_is_kept_by_a_reload_and_forgotten_by_a_log_out(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, _ = await ann_who_wrote_to_bob(new_person, stack, "hello")
    await ann.composer.fill("begun, not sent")
    await ann.page.reload()
    await expect(ann.composer).to_have_value("begun, not sent")
    await ann.composer.press("Enter")
    await ann.sees("begun, not sent", "sent")
    await ann.page.reload()
    await ann.sees("begun, not sent")
    await expect(ann.composer).to_have_value("")
    await ann.composer.fill("nobody else's business")
    panel = await ann.settings("Devices")
    await panel.get_by_role("button", name="Log out here").click()
    await expect(ann.page.get_by_label("Username")).to_be_visible()
    assert await ann.page.evaluate("sessionStorage.getItem('duet-drafts')") is None


async def test_refused_change_of_a_conversation_that_is_gone_leaves_its_text_to_copy(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    me = await ann.own_id()
    change = {"conversation": "gone", "seq": 1, "user": me, "owner": "gone", "attempts": 1}
    for entry in (
        {"id": "1", "kind": "delete", **change},
        {"id": "2", "kind": "edit", "text": "nowhere to keep it", **change},
    ):
        await ann.leave_in_outbox(entry)
    await ann.page.reload()
    await expect(ann.page.get_by_role("dialog")).to_contain_text("nowhere to keep it")
    await expect(ann.page.get_by_text("The message was not deleted.")).to_be_visible()
    assert await ann.outbox() == []
