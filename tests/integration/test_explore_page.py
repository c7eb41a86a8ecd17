"""The page of `pathencoder explore` in headless Chromium: what a click and the keys do.

The similarities that it shows are compared with those of whole features in numpy.
"""

import numpy as np
import pytest
import small_maps
from browser import Browser

from pathencoder.cli.main import run
from pathencoder.pictures import ground

pytestmark = [pytest.mark.full, pytest.mark.browser]

FIRST, KINDS = small_maps.corners()
COUNT = len(FIRST)
# the tiles of the second slide lie on no grid
PLACES = np.concatenate([FIRST, FIRST + np.random.default_rng(0).integers(-9, 10, FIRST.shape)])


@pytest.fixture(scope="module")
def rows():
    return [small_maps.rows(KINDS, seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def page(tmp_path_factory, rows):
    """Two slides with the same three tissues; only the first is at hand."""
    folder = tmp_path_factory.mktemp("a folder with spaces, \u00b5")
    slide = small_maps.slide(folder / "seen.svs")
    files = [
        small_maps.feature_file(folder, "seen", made_from=slide.path, features=rows[0]),
        small_maps.feature_file(
            folder, "unseen", layout="clam", features=rows[1], places=PLACES[COUNT:]
        ),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground, "open_slide", lambda path: slide)
        assert run(["explore", *map(str, files), "--out", str(folder / "page.html")]) == 0
    return folder / "page.html"


@pytest.fixture(scope="module")
def opened(page, chromium, tmp_path_factory):
    browser = Browser(chromium, tmp_path_factory.mktemp("profile"))
    try:
        browser.open(page.as_uri())
        browser.wait("document.body.dataset.complete === 'yes'")
        yield browser
    finally:
        browser.close()


@pytest.fixture
def browser(opened):
    """The page as it was when it was opened, and no errors afterwards."""
    opened.press("Escape")
    opened.press("0")
    yield opened
    assert opened.errors == []


def state(browser):
    return browser.run("explorer.state()")


def text(browser, name):
    return browser.run(f"document.getElementById('{name}').textContent")


def click_tile(browser, tile):
    browser.click(*browser.run(f"explorer.centre({tile})"))


def colour_at(browser, tile):
    """The colour of the map at a point of a tile that no mark covers: red, green, blue."""
    x, y = browser.run(f"explorer.centre({tile})")
    data = f"document.getElementById('map').getContext('2d').getImageData({x}, {y}, 1, 1).data"
    return np.array(browser.run(f"Array.from({data})")[:3])


def whole_cosines(rows, tile):
    """Cosines to a tile about the mean, of all numbers."""
    every = np.concatenate(rows).astype(np.float64)
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    every -= every.mean(axis=0)
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    return every @ every[tile]


def test_nothing_is_loaded_but_the_page(browser, page):
    assert browser.requests == [page.as_uri()]


def test_the_page_says_what_it_shows(browser):
    assert text(browser, "title") == "2 slides"
    assert text(browser, "sum") == "2 slides, 90 tiles"
    assert "unseen.svs: the slide is not shown" in text(browser, "warnings")
    assert "64 principal components of 96 numbers" in text(browser, "method")
    assert "correlation 0.9" in text(browser, "method")
    assert "12" * 32 in text(browser, "about")
    assert "a note" in text(browser, "slides")


@pytest.mark.parametrize("tile", [3, COUNT - 1, COUNT + 20])
def test_a_click_paints_the_similarity_to_that_tile(browser, rows, tile):
    before = [colour_at(browser, other).tolist() for other in range(2 * COUNT)]
    click_tile(browser, tile)
    now = state(browser)
    assert (now["chosen"], now["colours"]) == (tile, "similarity")
    shown, whole = np.array(browser.run("explorer.cosines()")), whole_cosines(rows, tile)
    assert np.abs(shown - whole).max() < 0.1
    assert np.corrcoef(shown, whole)[0, 1] > 0.99
    wanted = np.argsort(-np.where(np.arange(len(whole)) == tile, -2, whole))[:12]
    assert now["nearest"][0] in wanted[:3]
    assert len(set(now["nearest"]) & set(wanted.tolist())) >= 9
    kinds = np.tile(KINDS, 2)
    assert set(kinds[now["nearest"]]) == {kinds[tile]}
    marked = {tile, *now["nearest"]}
    free = [other for other in range(2 * COUNT) if other not in marked]
    after = {other: colour_at(browser, other) for other in free}
    assert any(after[other].tolist() != before[other] for other in free)
    # yellow has more red than dark blue
    near = [after[other][0] for other in free if kinds[other] == kinds[tile]]
    far = [after[other][0] for other in free if kinds[other] != kinds[tile]]
    assert min(near, default=255) > max(far)
    x, y = PLACES[tile]
    name = "seen.svs" if tile < COUNT else "unseen.svs"
    assert text(browser, "status").startswith(f"Chosen: {name}, tile {x},{y}")


def test_the_nearest_tiles_are_of_the_slides_asked_for_and_can_be_chosen(browser):
    click_tile(browser, 5)
    for scope, right in (("same", True), ("other", False)):
        browser.run(f"scope.value = '{scope}'; scope.dispatchEvent(new Event('change')); undefined")
        assert {tile < COUNT for tile in state(browser)["nearest"]} == {right}
    listed = browser.run(
        "Array.from(document.querySelectorAll('#nearest button'), b => Number(b.dataset.tile))"
    )
    assert listed == state(browser)["nearest"]
    browser.run("document.querySelector('#nearest button').click()")
    assert state(browser)["chosen"] == listed[0]
    browser.run("scope.value = 'all'; scope.dispatchEvent(new Event('change')); undefined")


def test_a_nearest_tile_is_cut_from_the_picture_of_its_slide(browser):
    tile = int(np.flatnonzero(KINDS == 1)[5])  # blue tissue
    click_tile(browser, tile)
    script = "chosenTile.getContext('2d').getImageData(48, 48, 1, 1).data"
    red, _, blue, _ = browser.run(f"Array.from({script})")
    assert blue > red + 30


def test_keys_move_zoom_and_clear(browser):
    click_tile(browser, 0)
    start = FIRST[0]
    for key, move in (("ArrowRight", (100, 0)), ("ArrowDown", (0, 100)), ("ArrowLeft", (-100, 0))):
        browser.press(key)
        start = start + move
        assert FIRST[state(browser)["chosen"]].tolist() == start.tolist()
    browser.press("ArrowUp")
    assert state(browser)["chosen"] == 0
    browser.press("ArrowUp")  # there is no tile
    assert state(browser)["chosen"] == 0
    zoom = state(browser)["zoom"]
    browser.press("+")
    assert state(browser)["zoom"] == pytest.approx(1.4 * zoom)
    browser.press("-")
    assert state(browser)["zoom"] == pytest.approx(zoom)
    browser.press("Escape")
    now = state(browser)
    assert (now["chosen"], now["nearest"], now["colours"]) == (-1, [], "pca")
    browser.press("ArrowLeft")  # begins in the middle
    assert state(browser)["chosen"] >= 0


def test_the_mouse_moves_and_zooms_the_map(browser):
    x, y = browser.run("explorer.centre(10)")
    browser.drag((x, y), (x + 60, y + 30))
    assert browser.run("explorer.centre(10)") == pytest.approx([x + 60, y + 30], abs=1)
    assert state(browser)["chosen"] == -1  # a drag is not a click
    before = state(browser)["zoom"]
    browser.wheel(x + 60, y + 30, -300)
    browser.wait(f"explorer.state().zoom > {1.2 * before}")
    assert browser.run("explorer.centre(10)") == pytest.approx([x + 60, y + 30], abs=2)
    click_tile(browser, 10)
    assert state(browser)["chosen"] == 10


def test_the_tiles_lie_on_the_tissue_of_the_picture(browser):
    """Without a map, the middle of a tile has the colour of its tissue."""
    browser.run("document.querySelector('input[value=none]').click()")
    for kind, (colour, _) in enumerate(small_maps.KINDS.values()):
        for tile in np.flatnonzero(kind == KINDS)[::4].tolist():
            assert np.abs(colour_at(browser, tile) - colour).max() < 60
    browser.run("document.querySelector('input[value=pca]').click()")


def test_it_prints(browser):
    click_tile(browser, 3)
    assert browser.print().startswith(b"%PDF")
    assert browser.run("Array.from(document.querySelectorAll('details')).every(d => d.open)")
