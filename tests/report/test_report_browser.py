"""The report in a real browser, from file://: nothing executes, nothing leaves, and only what is seen is drawn."""

import socket
from collections.abc import Iterator

import pytest
from browser_session import BROWSER, Page, browser_page
from synthetic_run import HOSTILE, big_run, foreseen_run, hostile_run, repro, run_of_kinds, small_run

from harness.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]
DRAWN = "document.querySelectorAll('#grid td:not(.gap)').length"
MATCHES = "document.querySelector('.matches').textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_leaves_and_nothing_breaks(page: Page) -> Iterator[None]:
    page.requests.clear()
    page.trouble.clear()
    page.size(1400, 900)
    yield
    page.run("0")
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "about:", "blob:"))] == []
    assert page.trouble == []


def made(tmp_path_factory: pytest.TempPathFactory, name: str, run) -> str:  # type: ignore[no-untyped-def]
    data, shelf = run
    into = tmp_path_factory.mktemp(name) / "report"
    return write_report(data, into, read_evidence=shelf.read, repro_command=repro).parent.as_uri()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory, "small", small_run())


@pytest.fixture(scope="module")
def foreseen(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory, "foreseen", foreseen_run())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory, "hostile", hostile_run())


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory, "big", big_run(200, 50))


def open_cell(page: Page, root: str, cell: str) -> None:
    page.open(f"{root}/cell.html#{cell}")
    page.until("document.querySelector('.verdict')")


def test_the_filters_of_an_address_are_applied_and_kept(page: Page, small: str) -> None:
    page.open(f"{small}/index.html#outcome=fail&stack=rocm")
    assert page.run(MATCHES) == "1 of 16 cells"
    page.run("document.querySelector('input[value=rocm]').click()")
    assert page.run(MATCHES) == "3 of 16 cells"
    assert page.run("location.hash") == "#outcome=fail"
    page.run("location.hash = 'q=uname%20ring'; 0")
    page.until(f"{MATCHES} === '0 of 16 cells'")
    page.run("location.hash = 'series=stable&q=gfx%20timeout'; 0")
    page.until(f"{MATCHES} === '1 of 16 cells'")


def test_arrow_keys_slash_and_enter_reach_a_cell(page: Page, small: str) -> None:
    page.open(f"{small}/index.html")
    page.press("/", "/")
    assert page.run("document.activeElement.id") == "q"
    page.press("Escape")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "End", "Home", "ArrowRight"):
        page.press(key)
    assert (
        page.run(
            "document.activeElement.closest('td').dataset.row + document.activeElement.closest('td').dataset.column"
        )
        == "11"
    )
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    page.until("location.pathname.endsWith('cell.html') && document.querySelector('.verdict')")
    assert page.run("document.title") == "debian-13/lts-6.12/intree/none"


def test_a_cell_page_shows_ladder_evidence_and_the_deciding_line(page: Page, small: str) -> None:
    open_cell(page, small, "fedora-44/stable/nova/nvidia-l4")
    assert page.run("[...document.querySelectorAll('.ladder tbody th')].map(n => n.textContent).join(' ')") == (
        "image build boot load enumerate compute throughput unload"
    )
    assert page.run("document.querySelector('.repro code').textContent").startswith(
        "kdmatrix repro fedora-44/stable/nova"
    )
    page.run("document.querySelector('.deciding').click()")
    page.until("document.querySelector('.log .target')")
    assert "failed with error -22" in page.run("document.querySelector('.log .target').textContent")
    assert page.run("document.querySelector('.log .target').id") == "L62"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory, "kinds", run_of_kinds())


KINDS = {"gpu": "GPU", "cpu-runtime": "CPU", "fake": "FAKE"}


def test_only_a_gpu_gives_a_passing_cell_its_full_colour_and_the_others_say_what_they_are(
    page: Page, kinds: str
) -> None:
    """In the matrix drawn by the script, in the table without one, and on the cell's own page."""
    for name, cell in (("index.html", "#grid td:not(.gap)"), ("table.html", ".matrix td")):
        page.open(f"{kinds}/{name}")
        page.until(f"document.querySelector({cell + ' .tag'!r})")
        tags = page.run(f"[...document.querySelectorAll({cell + ' .tag'!r})].map(n => n.textContent).join(' ')")
        assert sorted(tags.split()) == sorted(KINDS.values())
        for kind, tag in KINDS.items():
            found = f"document.querySelector({f'{cell}.s-pass.k-{kind}'!r})"
            assert page.run(f"{found}.querySelector('.tag').textContent") == tag
            striped = page.run(f"getComputedStyle({found}.querySelector('a')).backgroundImage") != "none"
            assert striped == (kind != "gpu"), f"{name}: {kind}"
    for kind, tag in KINDS.items():
        open_cell(page, kinds, f"debian-13/lts-6.1/on-{kind}/0000:01:00.0")
        striped = page.run("getComputedStyle(document.querySelector('.verdict')).backgroundImage") != "none"
        assert striped == (kind != "gpu"), kind
        assert page.run("document.querySelector('.verdict').textContent").startswith(f"✓PASS{tag}reached")
        assert page.run(f"document.querySelector('.tests .tag.t-{kind}').textContent") == tag


def test_every_cell_of_a_report_is_found_in_its_chunk(page: Page, big: str) -> None:
    for cell in ("debian-13/k000/stack-00/none", "debian-14/k123/stack-33/none", "debian-14/k199/stack-49/none"):
        open_cell(page, big, cell)
        assert page.run("document.title") == cell
    page.open(f"{big}/cell.html#no/such/cell/here")
    page.until("document.querySelector('.missing')")
    assert "no cell" in page.run("document.querySelector('.missing').textContent")


def test_missing_evidence_says_so(page: Page, small: str) -> None:
    open_cell(page, small, "debian-13/lts-6.12/intree/none")
    assert "not collected" in page.run("document.querySelector('.files').textContent")


def test_no_hostile_text_is_ever_executed(page: Page, hostile: str) -> None:
    page.open(f"{hostile}/index.html")
    assert page.run("window.pwned") is None
    assert HOSTILE[0] in page.run("document.querySelector('#grid').textContent")
    page.open(f"{hostile}/table.html")
    assert page.run("window.pwned") is None
    for index in range(len(HOSTILE)):
        open_cell(page, hostile, f"debian-13/lts-{index}/intree/none")
        page.run("document.querySelector('.files .name a').click()")
        page.until("document.querySelector('.log')")
        assert page.run("window.pwned") is None
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert not page.run(r"/[\u202e\u2066\u0000\u001b\u2028]/.test(document.documentElement.outerHTML)")
    page.open(f"{hostile}/cell.html#<img src=x onerror=window.pwned=8>")
    page.until("document.querySelector('.missing')")
    assert page.run("window.pwned") is None


def test_the_policy_stops_a_script_and_a_request_that_got_in(page: Page, small: str) -> None:
    page.open(f"{small}/index.html")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        there = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        page.run(
            f"document.body.insertAdjacentHTML('beforeend', '<img src={there}x.png onerror=window.pwned=1>');"
            "const own = document.createElement('script'); own.textContent = 'window.pwned=2';"
            "document.body.append(own);"
            f"const far = document.createElement('script'); far.src = '{there}x.js'; document.body.append(far); 0"
        )
        assert page.run(f"fetch('{there}').then(() => 'sent', () => 'refused')") == "refused"
        with pytest.raises(TimeoutError):
            listener.accept()
    assert page.run("window.pwned") is None
    assert any("Content Security Policy" in text for text in page.trouble)
    page.trouble.clear()
    # A blocked request is still announced by the protocol; that it was blocked is what counts.
    page.requests.clear()


def test_ten_thousand_cells_are_drawn_as_needed(page: Page, big: str) -> None:
    page.open(f"{big}/index.html")
    seconds = page.open(f"{big}/index.html")
    assert seconds < 3
    assert 0 < page.run(DRAWN) < 400
    page.run("document.querySelector('.viewport').scrollTo(1e9, 1e9)")
    page.until('document.querySelector(\'[data-row="199"][data-column="49"]\')')
    assert page.run(DRAWN) < 400
    assert page.run("document.querySelectorAll('*').length") < 6000
    page.run("location.hash = 'outcome=fail'; 0")
    page.until(f"{MATCHES} === '435 of 10,000 cells'")
    assert 0 < page.run(DRAWN) < 400


def test_the_csv_of_the_view_holds_what_the_filters_leave(page: Page, small: str) -> None:
    page.open(f"{small}/index.html#outcome=fail")
    text = page.run(
        "new Promise(done => { URL.createObjectURL = blob => { blob.text().then(done); return '#'; };"
        "HTMLAnchorElement.prototype.click = () => {}; document.getElementById('csv').click(); })"
    )
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("cell,guest,kernel,series,uname_release")
    assert all(",fail," in line for line in lines[1:])


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_the_pages_without_sideways_scrolling(page: Page, small: str, dark: bool) -> None:
    page.size(390, 844, dark)
    page.open(f"{small}/index.html")
    assert page.run("document.documentElement.scrollWidth") == 390
    open_cell(page, small, "fedora-44/lts-6.12/rocm/amd-w7900")
    assert page.run("document.documentElement.scrollWidth") == 390
    assert page.run("document.getElementById('theme').textContent") == ("Light" if dark else "Dark")


def test_without_scripts_summary_and_table_are_there(page: Page, small: str) -> None:
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.send("Page.navigate", url=f"{small}/index.html?plain")
        page._wait_for_load(30)
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)
    assert page.run("document.querySelectorAll('table.matrix tbody tr').length") == 4
    assert "14 cells planned" in page.run("document.querySelector('.lead').innerText")


def test_printing_draws_the_whole_matrix(page: Page, small: str) -> None:
    page.size(600, 400)
    page.open(f"{small}/index.html")
    before = page.run(DRAWN)
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run(DRAWN) == 16
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run(DRAWN) == before


def test_a_prediction_that_failed_stands_on_the_front_page_and_out_in_its_cell(page: Page, foreseen: str) -> None:
    page.open(f"{foreseen}/index.html")
    shown = page.run("document.querySelector('.alarm').closest('section').innerText")
    assert "Predictions that did not come true" in shown
    assert "was PASS" in shown
    assert "ki-001-sgemm" in shown
    assert page.run("getComputedStyle(document.querySelector('.alarm')).color") == page.run(
        "getComputedStyle(document.querySelector('.badge.s-fail')).color"
    )
    open_cell(page, foreseen, "fedora-44/rc/nova/nvidia-l4")
    assert "did not come true" in page.run("document.querySelector('.expected tr.decides').innerText")


def test_a_cell_names_its_known_issue_and_links_only_real_threads(page: Page, foreseen: str) -> None:
    open_cell(page, foreseen, "debian-13/stable/cpu-opencl/none")
    text = page.run("document.querySelector('.issue').innerText")
    for word in ("ki-001-sgemm", "identified", "a loop is unrolled once too often", "7.4", "a letter"):
        assert word in text
    hrefs = page.run("[...document.querySelectorAll('.issue')[0].querySelectorAll('a')].map(a => a.href + a.rel)")
    assert hrefs == [
        "https://github.com/example/runtime/issues/12noopener noreferrer",
        "https://bugs.debian.org/1130057noopener noreferrer",
    ]
    page.open(f"{foreseen}/index.html#q=ki-001")
    assert page.run(MATCHES) == "1 of 16 cells"


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_what_was_expected_without_sideways_scrolling(page: Page, foreseen: str, dark: bool) -> None:
    page.size(390, 844, dark)
    page.open(f"{foreseen}/index.html")
    assert page.run("document.documentElement.scrollWidth") == 390
    for cell in ("debian-13/stable/cpu-opencl/none", "fedora-44/rc/nova/nvidia-l4"):
        open_cell(page, foreseen, cell)
        assert page.run("document.documentElement.scrollWidth") == 390
