"""The report: what a person wants to know is on the page, escaped, offline, for any state of a run."""

from __future__ import annotations

import base64
import html.parser
import io
import itertools
import math
import re

import pytest
from finished_run import FinishedRun, finished_run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from simulated_journal import write_failed_journal, write_journal

from coordinator.axes import doubling_ticks, ticks, time_ticks, whole_ticks
from coordinator.charts import Choice, Line, frontier, frontier_chart, interval_bar, line_chart
from coordinator.outputs import thumbnails
from coordinator.page import Html, escaped, table, tag
from coordinator.report import build_report
from shared_store import layout
from shared_store.cache import Cache
from shared_store.store import Store, open_store
from workers.story import Story
from workers.tasks import LabelTask, SearchTask, TrainTask

_VOID = {"meta", "img"}


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
    made = finished_run(open_store(str(root / "store")), Cache(root / "cache", limit_gb=1.0))
    write_journal(made)
    return made


def test_the_verdict_comes_first(run: FinishedRun) -> None:
    known = run.known()
    assert known.search is not None
    verdict = known.search["verdict"]
    text = " ".join(_read(build_report(known, {})).text.split())
    first = verdict.split(". ")[0].replace("+", " + ")
    assert text.index(first) < text.index("Ensembles")


def test_every_part_of_a_finished_run_is_there(run: FinishedRun) -> None:
    text = " ".join(_read(build_report(run.known(), {})).text.split())
    for words in [
        "plain mean of all 2 students",
        "What a better score costs",
        "The chosen on the selection photos",
        "The chosen on the labelled test photos",
        "Worst mistakes",
        "workstation 0",
        "Seeds: folds 42",
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
    page = build_report(run.known(), {})
    reader = _read(page)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_a_persons_names_are_text(run: FinishedRun) -> None:
    page = build_report(run.known(), {})
    assert "<broken>" not in page
    assert "&lt;broken&gt;" in page
    assert "<b>&quot;one" not in page


def test_the_same_run_gives_the_same_page(run: FinishedRun) -> None:
    assert build_report(run.known(), {}) == build_report(run.known(), {})


@pytest.mark.parametrize("kinds", [(), (TrainTask,), (TrainTask, LabelTask), (TrainTask, LabelTask, SearchTask)])
def test_an_unfinished_run_has_a_page(store: Store, cache: Cache, kinds: tuple[type, ...]) -> None:
    known = finished_run(store, cache, kinds).known()
    text = _read(build_report(known, {})).text
    assert "Not finished" in text
    assert "Photos" in text


def test_a_fold_stopped_within_its_first_epoch_has_no_curve(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, ())
    teacher = next(name for name, task in made.known().tasks.items() if isinstance(task, TrainTask))
    store.publish(layout.log(teacher, "metrics.csv"), Story().metrics_csv())
    assert made.known().curves == {}
    assert "Photos" in _read(build_report(made.known(), {})).text


def test_the_worst_mistakes_are_pictures_in_the_page(run: FinishedRun) -> None:
    known = run.known()
    pictures = thumbnails(run.store, known, run.cache)
    page = build_report(known, pictures)
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert len(sources) == sum(len(judged.worst) for judged in known.judged) > 0
    assert set(sources) == set(pictures.values())
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/jpeg;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).load()


def test_a_given_up_run_says_why_first(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, ())
    write_failed_journal(made, "the disk is <full>")
    text = " ".join(_read(build_report(made.known(), {})).text.split())
    assert text.index("Not finished: 0 of 9 tasks") < text.index("the disk is <full>") < text.index("The fleet")
    assert "2 attempts in 5 min: 0 lost, 2 failed" in text


def test_a_journal_of_another_version_is_said_not_to_be_understood(store: Store, cache: Cache) -> None:
    made = finished_run(store, cache, (TrainTask,))
    store.publish(layout.run_file("demo", "events.jsonl"), b'{"at":0.0,"event":"Teleported"}\n')
    text = " ".join(_read(build_report(made.known(), {})).text.split())
    assert "not understood, so nothing is told of its machines: line 1" in text


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


@given(st.floats(0.001, 1e6), st.floats(1, 1e4))
def test_doubling_ticks_reach_over_the_range(low: float, times: float) -> None:
    found = doubling_ticks(low, low * times)
    assert found[0] <= low <= low * times <= found[-1]
    assert all(1.9 < b / a < 2.6 for a, b in itertools.pairwise(found))


@given(st.floats(0.001, 1e8))
def test_hours_and_minutes_have_steps_that_a_clock_has(seconds: float) -> None:
    found = time_ticks(seconds, 8)
    assert found[0][0] == 0 and found[-1][0] <= seconds
    assert len(found) <= 9
    assert len({words.split()[1] for _, words in found}) == 1


def test_the_frontier_is_what_nothing_as_cheap_is_as_good_as() -> None:
    cheap, good, twin = Choice("a", 1.0, 0.5), Choice("b", 2.0, 0.9), Choice("c", 2.0, 0.9, chosen=True)
    dear, worse = Choice("d", 3.0, 0.9), Choice("e", 2.5, 0.4)
    assert frontier([dear, good, worse, twin, cheap], lower_is_better=False) == [cheap, twin]
    assert frontier([dear, good, worse, twin, cheap], lower_is_better=True) == [cheap, worse]
    drawn = frontier_chart("mAP", [dear, good, worse, twin, cheap], lower_is_better=False)
    _read(drawn)
    assert drawn.count("<circle") == 5 and drawn.count("edge") == 3 and drawn.count("best") == 1
    _read(frontier_chart("mAP", [Choice("a", 1.0, 0.5), Choice("b", 100.0, 0.5)], lower_is_better=False))


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
