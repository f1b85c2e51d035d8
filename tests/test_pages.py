"""Every page of the report in a browser and on paper: nothing fails, is fetched, or is cut off, and a phone is enough."""

import html
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from drgstudy.study import ROOT, Paths

SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
OTHERS = {"tablet": (768, 1024), "large": (1920, 1080)}  # for the report's own pages
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
    for (const e of document.body.querySelectorAll("*"))
        if (/hidden|clip/.test(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
            found.push("cut off: " + start(e));
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
    pages = [report / "index.html", *report.glob("explore.html"), *sorted(report.glob("*/*.html")), *papers(profile)]
    assert len(pages) > 5
    return {page.name: found for page in pages if (found := complaints(page, screens))}


def papers(profile: str) -> list[Path]:
    return sorted(Paths(profile).report.glob("paper-*.html"))


def test_every_page_of_the_demos_report(screens):
    assert complaints_by_page("demo", screens) == {}


def test_every_page_of_the_smoke_report(study, screens):
    assert len(papers("smoke")) == 2
    assert complaints_by_page("smoke", screens) == {}


# --- the index and the papers' pages
PARTS = """() => [...document.querySelectorAll("figure[id]")].map(figure => [
    figure.id, figure.querySelector(".number").textContent, figure.classList.contains("table"),
    [...figure.querySelectorAll("img")].map(image => image.alt).join()])"""
ROWS = """() => [...document.querySelectorAll("table:not(.phone) tr")].map(
    row => [...row.cells].map(cell => cell.textContent).join("").replace(/\\s/g, ""))"""
IN_SIGHT = """e => { const box = e.getBoundingClientRect(), look = e.checkVisibility({contentVisibilityAuto: true});
    return look && box.height > 0 && box.top >= 0 && box.bottom <= innerHeight && box.left >= 0 && box.right <= innerWidth }"""


def own_pages(profile: str) -> list[str]:
    return [page.resolve().as_uri() for page in [Paths(profile).report / "index.html", *papers(profile)]]


def check_first_screen(profile: str, page) -> None:
    """The index has at most eight screens, and its first one holds all verdicts and the links to all else."""
    page.goto(own_pages(profile)[0])
    assert page.evaluate("document.documentElement.scrollHeight / innerHeight") <= 8
    for shown in (".dataset", ".verdicts", "header nav"):
        assert page.locator(shown).first.evaluate(IN_SIGHT), shown
    assert page.locator(".verdicts .verdict").count() >= 4 and page.locator(".verdicts a[href*='doi.org']").count() == 2
    forest = page.locator(".first + figure img")
    assert not forest.count() or forest.evaluate(IN_SIGHT)


def check_numbers(profile: str, page) -> None:
    """Tables and figures are numbered from 1 on in the order of the page, each kind apart, and say something with a number."""
    for place, url in enumerate(own_pages(profile)[1:], 1):
        page.goto(url)
        shown = page.evaluate(PARTS)
        for letter, is_table in (("T", True), ("F", False)):
            numbers = [name for name, _, table, _ in shown if table == is_table]
            assert numbers == [f"{place}.{letter}{i}" for i in range(1, len(numbers) + 1)] and len(numbers) > 10
        for name, said, _, _ in shown:
            assert said.strip() in (f"Table {name}", f"Figure {name}")
        alts = [alt for _, _, is_table, alt in shown if not is_table]
        assert sum(bool(re.search(r"\d", alt)) for alt in alts) > 0.8 * len(alts)
        assert not any(
            re.match("(?i)(scatter|bars?|dot plot|box plot|heat map|histogram|density)", alt) for alt in alts
        )


def check_ways(profile: str, screens: dict) -> None:
    """The contents stay in sight, open on a wide screen and folded on a phone; there are ways in and up by the keyboard."""
    for screen, (page, _) in screens.items():
        page.goto(own_pages(profile)[1])
        page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
        contents, link = page.locator(".contents summary"), page.locator(".contents a").first
        assert contents.evaluate(IN_SIGHT) and page.locator(".up").evaluate(IN_SIGHT)
        assert link.evaluate(IN_SIGHT) == (screen == "desktop")
        if screen == "phone":
            contents.click()
            assert link.evaluate(IN_SIGHT)
        page.locator(".up").click()
        page.wait_for_function("scrollY === 0")
        page.goto(own_pages(profile)[1])
        assert not page.locator(".skip").evaluate(IN_SIGHT)
        page.keyboard.press("Tab")
        assert page.locator(".skip:focus").evaluate(IN_SIGHT)
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def lost_in_print(url: str, page, folder: Path) -> list[str]:
    """The rows of a page's tables that its printed form does not hold in full, those of folded parts included."""
    page.goto(url)
    page.pdf(path=folder / "page.pdf", format="A4")
    text = subprocess.run(["pdftotext", "-raw", folder / "page.pdf", "-"], capture_output=True, text=True, check=True)
    printed = re.sub(r"[\s\f]", "", text.stdout)
    return [row for row in page.evaluate(ROWS) if row not in printed]


def test_the_smoke_reports_index_fits_and_its_papers_are_numbered(study, screens):
    check_first_screen("smoke", screens["desktop"][0])
    check_numbers("smoke", screens["desktop"][0])


def test_the_smoke_reports_contents_stay_in_sight(study, screens):
    check_ways("smoke", screens)


def test_nothing_of_the_smoke_report_is_cut_off(study, screens):
    page, _ = screens["desktop"]
    before = page.viewport_size
    try:
        for width, height in OTHERS.values():
            page.set_viewport_size({"width": width, "height": height})
            for url in own_pages("smoke"):
                page.goto(url)
                assert page.evaluate(LOOK, width) == []
    finally:
        page.set_viewport_size(before)


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="no pdftotext is installed")
def test_all_rows_of_the_smoke_report_are_printed(study, screens, tmp_path):
    for url in own_pages("smoke"):
        assert lost_in_print(url, screens["desktop"][0], tmp_path) == []


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
        (f"<div style='overflow: hidden; width: 9em'><nobr>{WIDE[:99]}</nobr></div>", "cut off: <div"),
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


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="no pdftotext is installed")
def test_what_print_loses_is_noticed(tmp_path, screens):
    row = "".join(f"<td>{i}00</td>" for i in range(90))
    for style, lost in (("", 1), ("white-space: normal; display: inline-block", 0)):
        body = f"<h1>A</h1><table style='{style}'><tr>{row if lost else '<td>100</td>'}</tr></table>"
        assert len(lost_in_print(write(tmp_path, body).as_uri(), screens["desktop"][0], tmp_path)) == lost
    body = "<h1>A</h1><details><summary>more</summary><table><tr><td>folded away</td></tr></table></details>"
    assert lost_in_print(write(tmp_path, body).as_uri(), screens["desktop"][0], tmp_path) == ["foldedaway"]
