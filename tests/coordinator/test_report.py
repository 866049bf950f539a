"""The report: what a person wants to know is on the page, escaped, offline, for any state of a run."""

from __future__ import annotations

import html.parser
import itertools
import math
import re

import pytest
from finished_run import FinishedRun, finished_run
from hypothesis import given
from hypothesis import strategies as st

from coordinator.charts import Line, interval_bar, line_chart, ticks, whole_ticks
from coordinator.page import Html, escaped, table, tag
from coordinator.report import build_report
from shared_store import layout
from shared_store.cache import Cache
from shared_store.store import Store, open_store
from workers.story import Story
from workers.tasks import LabelTask, SearchTask, TrainTask

_VOID = {"meta", "line", "circle", "polyline", "path", "br"}


class _Reader(html.parser.HTMLParser):
    """Checks that elements close in order, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + " "


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    root = tmp_path_factory.mktemp("run")
    return finished_run(open_store(str(root / "store")), Cache(root / "cache", limit_gb=1.0))


def test_the_verdict_comes_first(run: FinishedRun) -> None:
    known = run.known()
    assert known.search is not None
    verdict = known.search["verdict"]
    text = " ".join(_read(build_report(known)).text.split())
    assert verdict.split(". ")[0] in text
    assert text.index(verdict.split(". ")[0]) < text.index("Ensembles")


def test_every_part_of_a_finished_run_is_there(run: FinishedRun) -> None:
    text = " ".join(_read(build_report(run.known())).text.split())
    for words in [
        "plain mean of all 2 teachers",
        "teacher/fold0 + ",
        "held out fold 0: none of these images",
        "mildly optimistic",
        "4 test photos predicted; nothing was chosen on them. On the 3 that are labelled",
        "1 left out",
        "digit_1/<broken>.jpg: the file is empty",
        "model: test_efficientnet",
        "Kept weights on the held-out photos",
        "validation mAP",
        "(unlabelled)",
    ]:
        assert words in text, words


def test_the_page_needs_no_network_and_no_script(run: FinishedRun) -> None:
    page = build_report(run.known())
    reader = _read(page)
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_a_persons_names_are_text(run: FinishedRun) -> None:
    page = build_report(run.known())
    assert "<broken>" not in page
    assert "&lt;broken&gt;" in page
    assert "<b>&quot;one" not in page


def test_the_same_run_gives_the_same_page(run: FinishedRun) -> None:
    assert build_report(run.known()) == build_report(run.known())


@pytest.mark.parametrize("kinds", [(), (TrainTask,), (TrainTask, LabelTask), (TrainTask, LabelTask, SearchTask)])
def test_an_unfinished_run_has_a_page(store: Store, cache: Cache, kinds: tuple[type, ...]) -> None:
    known = finished_run(store, cache, kinds).known()
    text = _read(build_report(known)).text
    assert ("Not finished" in text) == (SearchTask not in kinds)
    assert "Photos" in text


def test_a_fold_stopped_within_its_first_epoch_has_no_curve(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, ())
    teacher = next(name for name, task in made.known().tasks.items() if isinstance(task, TrainTask))
    store.publish(layout.log(teacher, "metrics.csv"), Story().metrics_csv())
    assert made.known().curves == {}
    assert "Photos" in _read(build_report(made.known())).text


def test_text_is_escaped_unless_it_is_markup() -> None:
    assert tag("p", "<i>", Html("<i></i>")) == "<p>&lt;i&gt;<i></i></p>"
    assert escaped('"') == "&quot;"


def test_columns_of_numbers_are_aligned_right() -> None:
    made = table(["name", "n"], [["a", "1,200"], ["b", "-0.5"]])
    assert made.count('class="number"') == 3
    assert table(["n"], []).count("number") == 0


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 9))
def test_ticks_reach_over_the_range_in_even_steps(low: float, span: float, count: int) -> None:
    high = low + span
    found = ticks(low, high, count)
    noise = 1e-6 * (abs(low) + abs(high))
    assert found[0] <= low + noise
    assert found[-1] >= high - noise
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-3, abs_tol=1e-9) for step in steps)
    assert 2 <= len(found) <= count + 2


def test_epochs_are_whole() -> None:
    assert whole_ticks(1, 3, 6) == [1, 2, 3]
    assert whole_ticks(1, 1, 6) == [1]
    assert len(whole_ticks(1, 500, 6)) <= 7


def test_a_chart_of_one_point_and_of_none() -> None:
    _read(line_chart("mAP", "epoch", [Line("a", "teacher", ((1.0, 0.5),), (0,))]))
    assert line_chart("mAP", "epoch", []) == ""
    assert "nan" not in line_chart("loss", "epoch", [Line("a", "teacher", ((1.0, math.nan), (2.0, 1.0)))])


def test_an_interval_of_no_width_is_drawn() -> None:
    _read(interval_bar(1.0, (1.0, 1.0), within=(1.0, 1.0), guide=1.0, best=True))
