"""The report in a real browser: drawn, nothing fetched, no error, as wide as a phone, light and dark."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finished_run import finished_run
from simulated_journal import write_failed_journal, write_journal

from coordinator.outputs import publish_report
from shared_store import layout
from shared_store.cache import Cache
from shared_store.store import open_store
from workers.tasks import LabelTask, SearchTask, Task, TrainTask

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing: pip install selenium")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason=f"missing: {'chromium ' * (CHROMIUM is None)}{'chromium-driver' * (DRIVER is None)} (apt-get install)",
)
CONFIG = """
folds: {{count: {folds}}}
recipe: {{model: test_efficientnet, weights: none, image_size: 32, batch_size: 2, epochs: 6}}
ensemble: {{max_members: 2, bootstrap: 100}}
"""
RUNS: dict[str, tuple[int, tuple[type[Task], ...] | None]] = {
    "five": (5, None),
    "fifty": (50, (TrainTask, LabelTask, SearchTask)),
    "failed": (5, ()),
}
WIDTHS = {"desk": 1280, "phone": 390}
OFFLINE = ("file:", "data:")
DRAWN = """
return [...document.querySelectorAll('svg[role=img]')].map(svg => {
  const box = svg.getBoundingClientRect(), drawn = svg.getBBox(), view = svg.viewBox.baseVal;
  const outside = [...svg.querySelectorAll('text')].filter(text => {
    const own = text.getBoundingClientRect();
    return own.left < box.left - 2 || own.right > box.right + 2 || own.top < box.top - 3 || own.bottom > box.bottom + 3;
  });
  return {label: svg.getAttribute('aria-label'), width: drawn.width / view.width, height: drawn.height / view.height,
    interval: svg.matches('.inline'), shown: box.width * box.height, outside: outside.map(text => text.textContent)};
});
"""
CONTRAST = """
const level = colour => {
  const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(value => {
    const share = value / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const ground = element => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (!/, 0\\)$/.test(colour) && colour !== 'transparent' && !colour.startsWith('rgba')) return level(colour);
  }
};
const dull = [];
for (const element of document.querySelectorAll('h1, h2, h3, p, li, td, th, figcaption span, summary, svg text')) {
  const style = getComputedStyle(element), front = level(element.closest('svg') ? style.fill : style.color);
  if (element.matches('.cell-count, .on-bar')) continue;
  const back = ground(element), ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  if (ratio < 4.5) dull.push([element.textContent, ratio]);
}
return {dull: dull, ground: level(getComputedStyle(document.body).backgroundColor)};
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of each kind of run, as a file."""
    made = {}
    for name, (folds, kinds) in RUNS.items():
        root = tmp_path_factory.mktemp(name)
        store, cache = open_store(str(root / "store")), Cache(root / "cache", limit_gb=1.0)
        run = finished_run(store, cache, kinds, CONFIG.format(folds=folds), per_class=35)
        write_failed_journal(run, "it crashed") if name == "failed" else write_journal(run)
        publish_report(store, run.known(), cache)
        path = store.backend.local_path(layout.run_file("demo", "report.html"))
        assert path is not None
        made[name] = path
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync", "disable-dev-shm-usage",
                 f"user-data-dir={tmp_path_factory.mktemp('profile')}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path], request: pytest.FixtureRequest) -> Any:
    """The browser at the page of (run, device, scheme), with all that opens at a click open."""
    run, device, scheme = request.param
    size = {"width": WIDTHS[device], "height": 850, "deviceScaleFactor": 1, "mobile": device == "phone"}
    scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_feature]})
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what was before
    browser.get(pages[run].as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")
    return browser


EVERY = [(run, device, scheme) for run in RUNS for device in WIDTHS for scheme in ("light", "dark")]


@pytest.mark.parametrize("opened", EVERY, indirect=True, ids="-".join)
def test_nothing_is_fetched_nothing_fails_and_nothing_is_wider_than_the_screen(
    opened: Any, request: pytest.FixtureRequest
) -> None:
    _, device, scheme = request.node.callspec.params["opened"]
    assert opened.execute_script("return document.documentElement.scrollWidth") <= WIDTHS[device]
    seen = opened.execute_script(CONTRAST)
    assert seen["dull"] == []
    assert (seen["ground"] > 0.8) if scheme == "light" else (seen["ground"] < 0.02)
    broken = "return [...document.images].filter(image => !image.complete || image.naturalWidth == 0).length"
    assert opened.execute_script(broken) == 0
    assert opened.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [message["params"]["request"]["url"] for message in messages if message["method"].endswith("BeSent")]
    assert asked and all(url.startswith(OFFLINE) for url in asked), asked


@pytest.mark.parametrize("opened", [(run, device, "light") for run in RUNS for device in WIDTHS], indirect=True,
                         ids="-".join)  # fmt: skip
def test_every_plot_is_drawn_and_no_label_is_cut_off(opened: Any, request: pytest.FixtureRequest) -> None:
    run, _, _ = request.node.callspec.params["opened"]
    plots = opened.execute_script(DRAWN)
    for plot in plots:
        least = 0.0 if plot["interval"] else 0.4  # an interval of no width is a dot
        assert plot["width"] > least and plot["height"] > least and plot["shown"] > 0, plot
        assert plot["outside"] == [], plot
    folds, parts = RUNS[run][0], {"five": 2, "fifty": 1, "failed": 0}[run]  # labelled: selection and test, selection
    expected = {"attempts on": 1}
    if parts:
        expected |= {"on the frontier": 1, "confusion matrix": parts, "precision by recall": parts}
        expected |= {"calibration in": parts, "by epoch": 3 + folds}
    drawn = [plot["label"] for plot in plots if not plot["interval"]]
    assert Counter(next(words for words in expected if words in label) for label in drawn) == expected
    assert len(plots) - len(drawn) >= 10 * bool(parts)  # the leaderboard's intervals
    assert not any(word in opened.page_source for word in ("NaN", "undefined", "Infinity"))
