"""Every page of the report in a browser: nothing fails, nothing is fetched, everything is shown, and a phone is enough."""

import html
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from drgstudy.study import ROOT, Paths

SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
# What the page itself knows. A phone enlarges innerWidth until a wide page fits, so the screen's width comes from outside.
LOOK = """async width => {
    const found = [], start = e => e.outerHTML.slice(0, 90).split("\\n")[0];
    for (const image of document.images) {
        image.loading = "eager";
        await image.decode().catch(() => {});
        if (!image.naturalWidth) found.push("image not shown: " + start(image));
        if (!image.alt.trim()) found.push("image without alt text: " + start(image));
    }
    let level = 0;
    for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
        if (+heading.tagName[1] > level + 1) found.push("heading level jumps: " + start(heading));
        level = +heading.tagName[1];
    }
    const scrolls = e => /auto|scroll/.test(getComputedStyle(e).overflowX),
        inside = e => e !== document.body && (scrolls(e) || inside(e.parentElement)),
        reach = e => e.getBoundingClientRect().left + Math.max(e.getBoundingClientRect().width, scrolls(e) ? 0 : e.scrollWidth),
        wide = [...document.body.querySelectorAll("*")].findLast(e => reach(e) > width + 1 && !inside(e.parentElement));
    if (wide || document.documentElement.scrollWidth > width)
        found.push("wider than the screen: " + start(wide || document.body));
    for (const table of document.querySelectorAll("table"))
        if (parseFloat(getComputedStyle(table).fontSize) < 12) found.push("letters too small: " + start(table));
    return found;
}"""


@pytest.fixture(scope="module")
def screens():
    """A browser window without a network for each of `SCREENS`."""
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        # root may not use the sandbox, and a container's /dev/shm is small
        browser = playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield {screen: _window(browser.new_page(offline=True, **options)) for screen, options in SCREENS.items()}


def _window(page) -> tuple:
    """The page, and a list that fills with what it fetches and what goes wrong in it."""
    said = []
    page.on("console", lambda message: message.type in ("error", "warning") and said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"script: {error}"))
    page.on("request", lambda request: said.append(f"request: {request.url}"))
    return page, said


def complaints(file: Path, screens: dict) -> list[str]:
    """What is wrong with the page in `file`, each with the screen in front."""
    found, url = [], file.resolve().as_uri()
    for screen, (page, said) in screens.items():
        said.clear()
        page.goto(url)
        said += page.evaluate(LOOK, page.viewport_size["width"])
        links = page.eval_on_selector_all("a[href]", "links => links.map(link => link.getAttribute('href'))")
        said += [f"link to nowhere: {link}" for link in dict.fromkeys(links) if not leads_somewhere(url, link)]
        allowed = (f"request: {url}", "request: data:")
        found += [f"{screen}: {what}" for what in said if not what.startswith(allowed)]
    return found


def leads_somewhere(url: str, link: str) -> bool:
    """Whether the file that the page at `url` links to is there, and the place in it; other sites are not asked."""
    target, place = urldefrag(urljoin(url, link))
    if urlsplit(target).scheme != "file":
        return True
    path = Path(unquote(urlsplit(target).path))
    if not path.is_file():
        return False
    return not place or f'id="{unquote(place)}"' in html.unescape(path.read_text(encoding="utf-8"))


def complaints_by_page(profile: str, screens: dict) -> dict[str, list[str]]:
    report = Paths(profile).report
    pages = [report / "index.html", *report.glob("explore.html"), *sorted(report.glob("pages/*.html"))]
    assert len(pages) > 5
    return {page.name: found for page in pages if (found := complaints(page, screens))}


def test_every_page_of_the_demos_report(screens):
    assert complaints_by_page("demo", screens) == {}


def test_every_page_of_the_smoke_report(study, screens):
    assert complaints_by_page("smoke", screens) == {}


# --- the checker itself

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
WIDE = "word " * 200
GOOD = f"""
<h1 id="a-b">A</h1><p>{WIDE}</p><h2>B</h2><h3>C</h3><h1>D</h1>
<img src="{PIXEL}" alt="a pixel" loading="lazy">
<div style="overflow-x: auto"><table><tr><td style="white-space: nowrap">{WIDE}</td></tr></table></div>
<a href="#a-b">up</a> <a href="a%20page.html#a-b">itself</a> <a href="note.txt">beside</a> <a href="https://example.org">far</a>
"""


def write(folder, body, head='<meta name="viewport" content="width=device-width">'):
    (folder / "note.txt").write_text("a note")
    (folder / "a page.html").write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>')
    return folder / "a page.html"


def test_a_good_page_has_no_complaint(tmp_path, screens):
    assert complaints(write(tmp_path, GOOD), screens) == []


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ('<img src="gone.png" alt="gone">', "image not shown: .*gone.png"),
        ('<img src="gone.png" alt="gone">', "request: file:.*gone.png"),
        ('<img src="https://example.org/a.png" alt="far">', "request: https://example.org/a.png"),
        ('<link rel="stylesheet" href="note.txt">', "request: file:.*note.txt"),
        (f'<img src="{PIXEL}">', "image without alt text"),
        ("<script>nowhere.to.be.found</script>", "script: nowhere is not defined"),
        ("<script>console.error('alas')</script>", "console: alas"),
        (f"<pre>{WIDE}</pre>", "wider than the screen: <pre>"),
        (f"<table><tr><td style='white-space: nowrap'>{WIDE}</td></tr></table>", "wider than the screen: <td"),
        (f"<div style='overflow: hidden'><pre>{WIDE}</pre></div>", "wider than the screen: <pre>"),
        ("<table style='font-size: 9px'><tr><td>1</td></tr></table>", "letters too small: <table"),
        ("<h1>A</h1><h3>B</h3>", "heading level jumps: <h3>B"),
        ("<h2>B</h2>", "heading level jumps: <h2>B"),
        ('<a href="#nowhere">x</a>', "link to nowhere: #nowhere"),
        ('<a href="gone.html">x</a>', "link to nowhere: gone.html"),
        ('<a href="a%20page.html#gone">x</a>', "link to nowhere: a%20page.html#gone"),
    ],
)
def test_a_broken_page_is_complained_about(bad, complaint, tmp_path, screens):
    found = complaints(write(tmp_path, bad), screens)
    for screen in SCREENS:
        assert any(re.match(f"{screen}: {complaint}", said) for said in found), found


def test_a_script_that_got_into_a_page_does_not_run(tmp_path, screens):
    policy = re.search("<meta http-equiv.*>", (ROOT / "lib/drgstudy/templates/page.html").read_text(encoding="utf-8"))
    bad = "<script>document.title = 'it ran'</script><img src=x: alt=x onerror=\"document.title = 'it ran'\">"
    bad += "<style>@import 'https://example.org/a.css'; h1 { background: url(https://example.org/b.png) }</style><h1>A</h1>"
    for head, title in ((policy[0], ""), ("", "it ran")):
        said = "".join(complaints(write(tmp_path, bad, head), screens))
        assert {page.title() for page, _ in screens.values()} == {title}
        for place in ("a.css", "b.png"):  # the browser tells of a request before the policy stops it
            stopped = f"'https://example.org/{place}' violates the following Content Security Policy" in said
            assert stopped == (not title)


def test_a_page_that_only_a_desktop_can_show(tmp_path, screens):
    """A block of 500 pixels, and a page that a phone would show at desktop size."""
    for page in (write(tmp_path, "<div style='width: 500px'>x</div>"), write(tmp_path, GOOD, head="")):
        found = complaints(page, screens)
        assert found and all(said.startswith("phone: wider than the screen") for said in found)
