"""What people at the page notice of dropped connections and ending tokens: next to nothing."""

import asyncio
import signal

import pytest
from playwright.async_api import (
    BrowserContext,
    Page,
    Request,
    Route,
    WebSocket,
    WebSocketRoute,
    expect,
)

from tests.browser.backstage import say, sign_up
from tests.browser.conftest import NewPerson, ann_and_bob
from tests.browser.person import Person
from tests.browser.stack import Stack
from tests.support.engines import ON_SCALE
from ws_gateway.__main__ import main

_TOP = "(element) => element.getBoundingClientRect().top"
_one_file = pytest.mark.skipif(ON_SCALE, reason="PostgreSQL is no file of the gateway's")


async def test_killed_gateway_heals_and_what_was_written_meanwhile_is_sent_once(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, bob = await ann_and_bob(new_person)
    await ann.write("one")
    await bob.open("ann")
    await bob.sees("one")
    await stack.stop_gateway(signal.SIGKILL)
    await expect(ann.banner).to_contain_text("Reconnecting")
    for text in ("two", "three", "four"):
        await ann.write(text)
        await ann.sees(text, "sending")
    await bob.write("from the other side")
    await stack.start_gateway()
    await expect(ann.banner).to_be_hidden(timeout=30_000)
    for text in ("two", "three", "four"):
        await ann.sees(text, "read")
        await bob.sees(text)
    await ann.sees("from the other side")
    texts = await bob.texts()
    assert sorted(texts) == ["four", "from the other side", "one", "three", "two"]
    assert [text for text in texts if text != "from the other side"] == [
        "one",
        "two",
        "three",
        "four",
    ]
    assert await ann.texts() == texts


async def test_nobody_is_said_to_be_online_while_the_connection_is_away(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, _ = await ann_and_bob(new_person)
    await ann.write("hello")
    status = ann.page.locator(".thread-head .status")
    await expect(status).to_have_text("online")
    await expect(ann.page.locator(".presence")).to_have_count(2)
    await stack.stop_gateway(signal.SIGKILL)
    await expect(ann.banner).to_contain_text("Reconnecting")
    await expect(status).to_have_text("@bob")
    await expect(ann.page.locator(".presence")).to_have_count(0)
    await stack.start_gateway()
    await expect(status).to_have_text("online", timeout=30_000)


async def test_what_was_written_offline_survives_the_tab(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, bob = await ann_and_bob(new_person)
    await ann.write("before")
    await ann.sees("before", "delivered")
    await stack.stop_gateway(signal.SIGKILL)
    await ann.write("written in the dark")
    await ann.sees("written in the dark", "sending")
    await ann.page.close()
    ann.page = await ann.context.new_page()
    await ann.page.goto(ann.url)
    await stack.start_gateway()
    await ann.open("bob")
    await ann.sees("written in the dark", "delivered")
    await bob.open("ann")
    await bob.sees("written in the dark")
    assert await bob.texts() == ["before", "written in the dark"]


async def test_preference_that_cannot_be_saved_flips_back_and_says_why(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    panel = await ann.settings("Appearance and privacy")
    switch = panel.get_by_role("switch", name="Show when you are online")
    await expect(switch).to_be_checked()
    await stack.stop_gateway(signal.SIGKILL)
    await ann.page.clock.install()
    await switch.click()
    await expect(switch).not_to_be_checked()
    await ann.page.clock.run_for(30_000)
    await expect(panel.get_by_role("alert").get_by_text("No connection.")).to_be_visible()
    await expect(switch).to_be_checked()


async def test_other_tab_sends_what_a_closed_one_has_left(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, bob = await ann_and_bob(new_person)
    await ann.write("before")
    await ann.sees("before", "delivered")
    tab = await ann.another_tab()
    await tab.open("bob")
    await tab.sees("before")
    await stack.stop_gateway(signal.SIGKILL)
    await ann.write("last words")
    await ann.sees("last words", "sending")
    await ann.page.close()
    await stack.start_gateway()
    await tab.sees("last words", "delivered")
    await bob.open("ann")
    await bob.sees("last words")
    assert await bob.texts() == ["before", "last words"]


async def test_ack_that_is_lost_does_not_double_the_message(
    new_person: NewPerson, stack: Stack
) -> None:
    ann, bob = await new_person(), await new_person()
    lost = await _lose_first_ack(ann.page, stack)
    await ann.sign_up("ann")
    await bob.sign_up("bob")
    await ann.find("bob")
    await ann.write("only once")
    await ann.sees("only once", "delivered")
    assert lost == [True]
    await bob.open("ann")
    await bob.sees("only once")
    await ann.sees("only once", "read")


async def test_refused_access_token_is_renewed_without_a_word(new_person: NewPerson) -> None:
    ann, bob = await new_person(), await new_person()
    await bob.sign_up("bob")
    await ann.sign_up("ann")
    refused: list[str] = []

    async def refuse_first(route: Route, request: Request) -> None:
        if refused:
            await route.continue_()
            return
        refused.append(request.url)
        headers = {**request.headers, "authorization": "Bearer worn-out"}
        await route.continue_(headers=headers)

    await ann.page.route("**/v1/users?*", refuse_first)
    async with ann.page.expect_response("**/v1/token") as renewal:
        await ann.find("bob")
    assert (await renewal.value).status == 200
    assert len(refused) == 1


@_one_file
async def test_restored_database_is_shown_and_marked_as_it_is(
    new_person: NewPerson, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob, copy = await _backed_up_after_one(new_person, stack, monkeypatch)
    await bob.open("ann")
    for text in ("two", "three"):
        await ann.write(text)
        await ann.sees(text, "read")
    await bob.page.evaluate("location.hash = ''")
    await stack.stop_gateway(signal.SIGTERM)
    assert main(["restore", copy]) == 0
    await stack.start_gateway()
    await expect(ann.entry("bob").locator(".preview")).to_have_text("one", timeout=30_000)
    await expect(bob.page).to_have_title("(1) Duet", timeout=30_000)
    await ann.write("another two")
    await ann.sees("another two", "delivered")
    await expect(bob.page).to_have_title("(2) Duet")
    await bob.open("ann")
    await ann.sees("another two", "read")
    assert await bob.texts() == await ann.texts() == ["one", "another two"]


@_one_file
async def test_restored_database_leaves_focus_and_menus_where_their_message_is(
    new_person: NewPerson, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob, copy = await _backed_up_after_one(new_person, stack, monkeypatch)
    tab = await ann.another_tab()
    await tab.open("bob")
    await ann.write("two")
    await ann.sees("two", "delivered")
    await bob.entry("ann").focus()
    await expect(bob.entry("ann").locator(".preview")).to_have_text("two")
    await stack.stop_gateway(signal.SIGTERM)
    await ann.write("another two")
    await ann.sees("another two", "sending")
    for each, text in ((ann, "one"), (tab, "two")):
        await each.message(text).locator(".row-menu").press("Enter")
        await expect(each.page.get_by_role("menuitem", name="Copy text")).to_be_focused()
    assert main(["restore", copy]) == 0
    await stack.start_gateway()
    await ann.sees("another two", "delivered")
    await expect(ann.message("two")).to_have_count(0)
    await expect(ann.page.get_by_role("menuitem", name="Copy text")).to_be_focused()
    await ann.page.keyboard.press("Escape")
    await expect(ann.message("one").locator(".row-menu")).to_be_focused()
    await tab.sees("another two")
    await expect(tab.message("two")).to_have_count(0)
    await expect(tab.page.get_by_role("menu")).to_be_hidden()
    await expect(bob.entry("ann").locator(".preview")).to_have_text("another two")
    await expect(bob.entry("ann")).to_be_focused()


@_one_file
async def test_restored_database_leaves_one_where_one_reads(
    new_person: NewPerson, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await new_person()
    await ann.sign_up("ann")
    me = await ann.own_id()
    bob = await sign_up(stack, "bob")
    await say(stack, bob, me, [f"needle{number}" for number in range(1, 46)])
    copy = _back_up(stack, monkeypatch)
    await say(stack, bob, me, ["lost"])
    await ann.page.get_by_role("searchbox").fill("needle10")
    await ann.page.locator(".hit[data-seq='10']").click()
    row = ann.message("needle10")
    await expect(row).to_be_focused()
    await row.press("Enter")
    before = await row.evaluate(_TOP)
    histories = _frames_received(ann.context, "history")
    await stack.stop_gateway(signal.SIGTERM)
    assert main(["restore", copy]) == 0
    await stack.start_gateway()
    for _ in ("before", "after"):
        await asyncio.wait_for(histories.get(), 30)
    await expect(ann.entry("bob").locator(".preview")).to_have_text("needle45")
    await expect(ann.page.get_by_role("menuitem", name="Copy text")).to_be_focused()
    assert abs(await row.evaluate(_TOP) - before) < 1
    await ann.page.keyboard.press("Escape")
    await ann.page.get_by_role("button", name="Go to the latest message").click()
    await ann.sees("needle45")
    await expect(ann.message("lost")).to_have_count(0)


class TestShortLivedTokens:
    """Access tokens of thirty seconds, the shortest there are; the gateway announces their end
    after twenty."""

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"DUET_ACCESS_TOKEN_LIFETIME_S": "30"}

    async def test_two_tabs_renew_the_token_once_and_keep_their_connections(
        self, new_person: NewPerson
    ) -> None:
        ann, bob = await new_person(), await new_person()
        await bob.sign_up("bob")
        refreshed = _frames_received(ann.context, "refreshed")
        await ann.sign_up("ann")
        await ann.find("bob")
        await ann.write("with the first token")
        await ann.sees("with the first token", "delivered")
        tab = await ann.another_tab()
        await tab.open("bob")
        again = _sockets_opened(ann.context)
        renewals: list[str] = []
        ann.context.on(
            "request",
            lambda request: renewals.append(request.url) if "/v1/token" in request.url else None,
        )
        for _ in (ann, tab):
            await asyncio.wait_for(refreshed.get(), 40)
        assert len(renewals) == 1
        await ann.write("with the second")
        await tab.sees("with the second", "delivered")
        await tab.write("from the other tab")
        await ann.sees("from the other tab", "delivered")
        assert again == []


async def _backed_up_after_one(
    new_person: NewPerson, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> tuple[Person, Person, str]:
    """Ann has written "one" to Bob, and the copy was made."""
    ann, bob = await ann_and_bob(new_person)
    await ann.write("one")
    await ann.sees("one", "delivered")
    return ann, bob, _back_up(stack, monkeypatch)


def _back_up(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> str:
    """Copy the gateway's database, which `main` finds from now on. Returns where the copy is."""
    monkeypatch.setenv("DUET_DATA_DIR", str(stack.data_dir))
    copy = str(stack.data_dir / "copy.db")
    assert main(["backup", copy]) == 0
    return copy


async def _lose_first_ack(page: Page, stack: Stack) -> list[bool]:
    """Let the connection die in place of the first ack that would have come."""
    lost: list[bool] = []

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        async def from_server(frame: str | bytes) -> None:
            if '"type":"ack"' in str(frame) and not lost:
                lost.append(True)
                await socket.close(code=1011)
                await server.close()
            else:
                socket.send(frame)

        server.on_message(from_server)

    await page.route_web_socket(stack.gateway_url, relay)
    return lost


def _frames_received(context: BrowserContext, kind: str) -> asyncio.Queue[str]:
    """The frames of that type that come from now on, in any tab; also in those not open yet."""
    frames: asyncio.Queue[str] = asyncio.Queue()

    def listen(socket: WebSocket) -> None:
        def take(frame: str | bytes) -> None:
            if f'"type":"{kind}"' in str(frame):
                frames.put_nowait(str(frame))

        socket.on("framereceived", take)

    for page in context.pages:
        page.on("websocket", listen)
    context.on("page", lambda page: page.on("websocket", listen))
    return frames


def _sockets_opened(context: BrowserContext) -> list[str]:
    """The connections that are made from now on: none, if those that are there hold."""
    opened: list[str] = []
    for page in context.pages:
        page.on("websocket", lambda socket: opened.append(socket.url))
    return opened
