"""A reader of the page in Chromium: order, filters, links, keys; no error, no request, nothing that axe finds."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from captioning.report.viewer.content import ShownImage
from captioning.report.viewer.page import render_page
from tests.helpers.apart import import_apart
from tests.helpers.browser import open_chromium, read_console, read_requests, set_screen
from tests.helpers.shown_captions import ARABIC, HOSTILE, PAIR, shown_rows, write_page

Reader = Callable[..., Any]  # opens the page with a fragment, and returns the driver
FIRST, SECOND = 1, 2  # the pair's places in an image's captions
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ShownImage]]:
    path = tmp_path_factory.mktemp("viewer") / "captions.html"
    return path, write_page(path)[1]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with open_chromium() as driver:
        yield driver


@pytest.fixture
def read(driver: Any, written: tuple[Path, list[ShownImage]]) -> Iterator[Reader]:
    """Give a function that opens the page anew; the test fails if it wrote to the console or asked for anything."""
    page = written[0].as_uri()
    read_console(driver), read_requests(driver)

    def open_page(fragment: str = "", width: int = 1400) -> Any:
        set_screen(driver, width, 900)
        driver.get("about:blank")
        driver.get(page + fragment)
        return driver

    yield open_page
    assert read_console(driver) == []
    assert set(read_requests(driver)) <= {page, "about:blank"}


@pytest.fixture
def images(written: tuple[Path, list[ShownImage]]) -> list[ShownImage]:
    return written[1]


def shown(driver: Any) -> list[str]:
    """Return the ids of all images that the page shows, after all cards are drawn."""
    script = (
        "drawMore(images.length); return [...document.querySelectorAll('article h2')].map((title) => title.textContent)"
    )
    return driver.execute_script(script)


def find(driver: Any, id_: str) -> Any:
    return driver.find_element("id", id_)


def choose(driver: Any, id_: str, value: str) -> None:
    find(driver, id_).find_element("css selector", f'option[value="{value}"]').click()


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "nothing changed for ten seconds"
        time.sleep(0.02)


def difference(image: ShownImage) -> float:
    return round(image.captions[SECOND].cider, 1) - round(image.captions[FIRST].cider, 1)


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("difference", lambda image: -abs(difference(image))),
        ("gain", lambda image: -difference(image)),
        ("loss", difference),
        ("worst", lambda image: image.captions[SECOND].cider),
        ("best", lambda image: -image.captions[SECOND].cider),
        ("split", lambda image: 0),
    ],
)
def test_images_are_in_the_chosen_order(order: str, key: Any, read: Reader, images: list[ShownImage]) -> None:
    driver = read()
    choose(driver, "sort", order)
    assert shown(driver) == [image.id for image in sorted(images, key=key)]
    assert ("sort=" in driver.current_url) == (order != "difference")


def test_rows_are_chosen_and_swapped(read: Reader, images: list[ShownImage]) -> None:
    driver = read()
    choose(driver, "first", "zero-shot-base")
    find(driver, "swap").click()
    points = [image.captions[0].cider - image.captions[SECOND].cider for image in images]
    expected = [images[k].id for k in sorted(range(len(images)), key=lambda k: -abs(points[k]))]
    assert shown(driver)[:20] == expected[:20]
    side = driver.find_element("css selector", ".side.second")
    assert "Row zero-shot-base" in side.text and f"{images[0].captions[0].cider:.1f}" in driver.page_source


FILTERS: dict[str, Callable[[ShownImage], bool]] = {
    "#words=tree&scope=first": lambda image: "tree" in tokens(image, FIRST),
    "#words=tree+-street&scope=second": lambda image: has_tree_and_no_street(tokens(image, SECOND)),
    "#words=%22near+the+pier%22&scope=references": lambda image: "near the pier" in "\n".join(image.references),
    "#words=d_1": lambda image: image.id.startswith("d_1"),
    "#source=UCM": lambda image: image.source == "UCM",
    "#scene=scene+1&source=NWPU": lambda image: (image.scene, image.source) == ("scene 1", "NWPU"),
    "#unshared-first=yes": lambda image: bool(image.captions[FIRST].unshared),
    "#unshared-first=yes&unshared-second=yes": lambda image: all(caption.unshared for caption in image.captions[1:]),
}


def has_tree_and_no_street(words: list[str]) -> bool:
    return "tree" in words and "street" not in words


@pytest.mark.parametrize("fragment", FILTERS)
def test_filters(fragment: str, read: Reader, images: list[ShownImage]) -> None:
    expected = {image.id for image in images if FILTERS[fragment](image)}
    assert 0 < len(expected) < len(images)
    driver = read(fragment)
    assert set(shown(driver)) == expected
    assert find(driver, "summary").text.startswith(f"{len(expected)} of {len(images)} images.")


def tokens(image: ShownImage, row: int) -> list[str]:
    return "".join(text for text, _ in image.captions[row].pieces).split()


def test_controls_filter_as_links_do_and_are_cleared(read: Reader, images: list[ShownImage]) -> None:
    driver = read()
    find(driver, "words").send_keys("boat")
    choose(driver, "source", "UCM")
    find(driver, "unshared-second").click()
    wait_for(lambda: "words=boat" in driver.current_url)
    chosen, address = shown(driver), driver.current_url
    assert chosen and chosen == shown(read("#" + address.partition("#")[2]))
    assert find(driver, "words").get_attribute("value") == "boat" and find(driver, "unshared-second").is_selected()
    find(driver, "reset").click()
    assert len(shown(driver)) == len(images) and driver.current_url.endswith("#")


def test_a_bar_of_the_histogram_shows_its_images(read: Reader, images: list[ShownImage]) -> None:
    driver = read()
    bars = driver.find_elements("css selector", "#histogram button")
    counts = [int(bar.get_attribute("aria-label").split()[0]) for bar in bars]
    assert sum(counts) == len(images) and len(bars) % 2 == 1
    largest = counts.index(max(counts))
    low, high = map(float, bars[largest].get_attribute("value").split(".."))
    bars[largest].click()
    expected = {image.id for image in images if low <= difference(image) < high}
    assert set(shown(driver)) == expected and len(expected) == counts[largest]
    pressed = driver.find_element("css selector", '#histogram [aria-pressed="true"]')
    press(driver, "\ue014")  # arrow right: from bar to bar, not from image to image
    assert driver.switch_to.active_element.get_attribute("value").startswith(f"{high:g}..")
    pressed.click()
    assert len(shown(driver)) == len(images)


def test_keys(read: Reader) -> None:
    driver = read()
    order = shown(driver)
    arrow_left, arrow_right, escape = "\ue012", "\ue014", "\ue00c"
    current = "return document.querySelector('[aria-current] h2').textContent"
    press(driver, arrow_right, arrow_right, arrow_right, arrow_left)
    assert (
        driver.execute_script(current)
        == order[1]
        == driver.switch_to.active_element.find_element("css selector", "h2").text
    )
    press(driver, "/", "x?")
    assert driver.switch_to.active_element == find(driver, "words") and not find(driver, "help").is_displayed()
    wait_for(lambda: "words=x" in driver.current_url)
    press(driver, escape)
    assert driver.switch_to.active_element == find(driver, "captions")
    find(driver, "reset").click()
    driver.execute_script("document.activeElement.blur()")
    press(driver, "xa")
    assert f"first={PAIR[1]}&second={PAIR[0]}&every-row=yes" in driver.current_url
    assert len(driver.find_elements("css selector", "article:first-of-type dl.every-row > div")) % 3 == 0
    press(driver, "?")
    assert find(driver, "help").is_displayed()
    find(driver, "keys").click()
    press(driver, escape, "x/")
    assert (
        not find(driver, "help").is_displayed()
        and f"first={PAIR[1]}" in driver.current_url
        and "keys=off" in driver.current_url
    )


def test_a_link_to_an_image_keeps_the_view(read: Reader, images: list[ShownImage]) -> None:
    driver = read("#sort=split&first=zero-shot-base")
    shown(driver)
    link = driver.find_elements("css selector", "article .link")[-1]
    link.click()
    wait_for(lambda: "image=" in driver.current_url)
    fragment = "#" + driver.current_url.partition("#")[2]
    driver = read(fragment)
    assert find(driver, "sort").get_attribute("value") == "split"
    card = driver.switch_to.active_element
    assert card.find_element("css selector", "h2").text == images[-1].id
    assert driver.execute_script(
        "const {top, bottom} = arguments[0].getBoundingClientRect(); return bottom > 0 && top < innerHeight", card
    )
    assert "Image nothing is not among them." in find(read("#image=nothing"), "summary").text


def test_texts_are_shown_as_written(read: Reader) -> None:
    driver = read("#sort=split")
    texts = driver.find_elements("css selector", ".side.first .text")
    assert texts[0].get_attribute("textContent") == HOSTILE and driver.title == "Captions side by side (miniature)"
    assert texts[1].text == ARABIC and texts[1].value_of_css_property("direction") == "rtl"
    assert texts[3].text == "(empty)"
    assert driver.find_elements("css selector", "main script, main img:not([src^='data:image/webp'])") == []
    wait_for(lambda: driver.execute_script("return document.querySelector('article img').naturalWidth") == 48)


def test_the_policy_stops_code_and_requests(driver: Any, written: tuple[Path, list[ShownImage]]) -> None:
    driver.get(written[0].as_uri())
    read_console(driver), read_requests(driver)
    driver.execute_async_script("""
      const done = arguments[0];
      const script = document.createElement("script");
      script.textContent = "document.title = 'broken'";
      const image = new Image();
      image.onerror = () => done();
      image.src = "http://127.0.0.1:9/pixel.png";
      document.body.append(script, image);
    """)
    assert driver.title != "broken" and read_requests(driver) == []
    assert len(read_console(driver)) >= 2, "the browser reports both"


def test_a_page_of_15_mb_is_painted_before_it_is_read(driver: Any, tmp_path: Path) -> None:
    """500 images of 22 kB; the time itself depends on the machine."""
    rows, (image, *_) = shown_rows(4)
    large = ShownImage(image.id, image.source, "", bytes(22_000), image.references, image.captions)
    (tmp_path / "captions.html").write_text(render_page(rows, [large] * 500, PAIR, "paper", 8904), encoding="utf-8")
    driver.get((tmp_path / "captions.html").as_uri())
    script = """const paint = performance.getEntriesByName("first-contentful-paint")[0];
      return [paint.startTime, performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd]"""
    painted, complete = driver.execute_script(script)
    assert painted < complete


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (800, True), (360, False), (360, True)])
def test_the_page_is_legible(width: int, dark: bool, read: Reader) -> None:
    """No sideways scrolling, and no violation of WCAG A or AA that axe can see."""
    driver = read("#words=boat&image=d_5", width)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    driver.execute_script(
        "document.getElementById('panel').open = true; document.querySelector('article details').open = true"
    )
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    axe = import_apart("axe_core_python.selenium")
    driver.set_script_timeout(120)
    answer = axe.Axe().run(driver, options={"runOnly": list(RULES)})
    violations = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in answer["violations"]]
    assert violations == [] and len(answer["passes"]) > 20
