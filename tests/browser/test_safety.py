"""Texts of people are texts, and the page talks to nobody but its own services."""

from urllib.parse import urlsplit

from playwright.async_api import expect

from tests.browser.backstage import say, sign_up
from tests.browser.conftest import NewPerson
from tests.browser.stack import Stack

NASTY = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "</span></li><svg onload=alert(1)>",
    '"><iframe src="javascript:alert(1)">',
    "javascript:alert(1)",
    'https://example.invalid/"onmouseover="alert(1)',
    "{{constructor.constructor('alert(1)')()}}",
    "&lt;b&gt; &amp; &#60;i&#62;",
    "«<b>bold</b>» <mark>",
    "\u202eright to left\u202c and 𝕦𝕟𝕚𝕔𝕠𝕕𝕖 \u0301\u0301\u0301",
]


async def test_nasty_texts_are_shown_as_they_were_written(
    new_person: NewPerson, stack: Stack
) -> None:
    ann = await new_person()
    await ann.sign_up("ann", "<b>Ann</b>")
    mallory = await sign_up(
        stack,
        "mallory",
        display_name="<img src=x onerror=alert(1)>",
        bio="<script>alert(1)</script>",
        status_text="<marquee>hi</marquee>",
        avatar_url='https://evil.invalid/a.png?"><script>alert(1)</script>',
    )
    await ann.find("mallory")
    for text in NASTY:
        await ann.write(text)
        await ann.sees(text, "sent")
    assert await ann.texts() == NASTY
    foreign = ".thread-body :is(img, iframe, script, b, i, mark, marquee), .sidebar :is(b, marquee)"
    assert await ann.page.locator(foreign).count() == 0
    await expect(ann.page.locator(".thread-head .name")).to_have_text(
        "<img src=x onerror=alert(1)>"
    )
    await ann.page.get_by_title("About this person").click()
    await expect(ann.page.locator(".person-bio")).to_have_text("<script>alert(1)</script>")
    await ann.page.keyboard.press("Escape")
    await ann.page.get_by_role("searchbox").fill("bold")
    await expect(ann.page.locator(".hit mark").first).to_be_visible()
    assert await ann.page.locator(".hit :is(b, i)").count() == 0
    assert await ann.page.title() == "Duet"
    links = await ann.page.locator(".row a").evaluate_all(
        "links => links.map(a => [a.href, a.rel])"
    )
    assert all(href.startswith("https://example.invalid/") for href, _ in links)
    assert all("noopener" in rel for _, rel in links)
    assert mallory["user"]["username"] == "mallory"


async def test_link_shows_where_it_leads(new_person: NewPerson) -> None:
    ann, bob = await new_person(), await new_person()
    await bob.sign_up("bob")
    await ann.sign_up("ann")
    await ann.find("bob")
    await ann.write(
        "https://example.invalid/\u202egnp.exe and \u202ehttps://example.invalid/x\u202c"
    )
    links = ann.page.locator(".row a")
    await expect(links).to_have_text(["https://example.invalid/", "https://example.invalid/x"])
    for link in await links.all():  # letters stand from left to right, whatever is around them
        starts = await link.evaluate(
            """({firstChild: text}) => [...text.data].map((_, i) => {
                 const range = new Range();
                 range.setStart(text, i);
                 range.setEnd(text, i + 1);
                 return range.getBoundingClientRect().left;
               })"""
        )
        assert starts == sorted(starts)


async def test_page_cannot_be_made_to_parse_html(new_person: NewPerson) -> None:
    ann = await new_person()
    await ann.page.goto(ann.url)
    blocked = await ann.page.evaluate(
        """() => { try { document.body.innerHTML = "<b>x</b>"; return false; }
                   catch (error) { return error instanceof TypeError; } }"""
    )
    assert blocked
    ann.errors.clear()


async def test_page_asks_nobody_but_its_own_services(new_person: NewPerson, stack: Stack) -> None:
    ann = await new_person()
    hosts: set[str] = set()
    ann.context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    ann.page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).netloc))
    await ann.sign_up("ann")
    bob = await sign_up(stack, "bob", avatar_url="https://tracker.invalid/pixel.png")
    await say(stack, bob, await ann.own_id(), ["https://tracker.invalid/"])
    await ann.open("bob")
    await ann.sees("https://tracker.invalid/")
    await ann.settings("Profile")
    assert hosts == {urlsplit(stack.url).netloc, urlsplit(stack.gateway_url).netloc}
