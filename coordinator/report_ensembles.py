"""The report's part on ensembles: the leaderboard with intervals, and the chosen against simpler choices. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.charts import Choice, frontier, frontier_chart, interval_bar
from coordinator.known import Known
from coordinator.leaderboard import METRIC_WORDS
from coordinator.page import Html, joined, section, table, tag

_TOP_ROWS = 10
_POINTS, _NAMED = 400, 4


def ensembles(known: Known) -> Html:
    """Nothing before the search is done."""
    if known.search is None:
        return Html("")
    search = known.search
    simpler = {tuple(found["ensemble"]): found for found in search["comparisons"]}
    winner = search["winner"]
    leaders = search["leaderboard"][:_TOP_ROWS]
    beside = [row for row in search["leaderboard"][_TOP_ROWS:] if tuple(row["ensemble"]) in simpler]
    shown = leaders + beside
    within = (min(row["score_low"] for row in shown), max(row["score_high"] for row in shown))
    metric = METRIC_WORDS[search["metric"]]
    lower = ", lower is better" if search["lower_is_better"] else ""
    rows = []
    for row in shown:
        ensemble, best = tuple(row["ensemble"]), row["ensemble"] == winner["ensemble"]
        members = [search["members"][place] for place in ensemble]
        bar = interval_bar(
            row["score"], (row["score_low"], row["score_high"]), within=within, guide=winner["score"], best=best
        )
        label = joined([_members(search, ensemble), _badge(best, simpler.get(ensemble))])
        costs = [sum(member[key] for member in members) for key in ("ms_per_image", "memory_mb")]
        interval = tag("span", f"{row['score_low']:.4f} to {row['score_high']:.4f}", kind="whole")
        rows.append([label, f"{row['score']:.4f}", bar, interval, f"{costs[0]:.1f}", f"{costs[1]:,.0f}"])
    head = ["members", metric, "", "95 % interval", "ms per image", "memory MB"]
    mark = [place for place, row in enumerate(shown) if row["ensemble"] == winner["ensemble"]]
    note = (
        f"{search['considered']:,} ensembles compared by {metric}{lower} on {search['images']:,} selection photos that "
        f"no model was trained on. Intervals from {search['bootstrap']:,} bootstrap resamples; the dotted line is the "
        "chosen one's score. Milliseconds and memory are sums over the members, as measured where each was trained."
    )
    parts = [tag("p", note, kind="soft"), table(head, rows, mark), _frontier(search), _comparisons(search)]
    return section("Ensembles", *parts)


def _frontier(search: Mapping[str, Any]) -> Html:
    """What a better score costs in milliseconds: the ensembles that were scored, those worth their price joined."""
    members, lower = search["members"], search["lower_is_better"]
    scored = {tuple(row["ensemble"]): row["score"] for row in (*search["leaderboard"], *search["comparisons"])}
    scored |= {(place,): member["score"] for place, member in enumerate(members)}
    every = scored | {
        tuple(ensemble): score for ensemble, score in zip(search["ensembles"], search["scores"], strict=True)
    }
    choices = {
        ensemble: Choice(
            _members(search, ensemble),
            sum(members[place]["ms_per_image"] for place in ensemble),
            score,
            list(ensemble) == list(search["winner"]["ensemble"]),
        )
        for ensemble, score in every.items()
    }
    edge = frontier(list(choices.values()), lower)
    kept = dict.fromkeys([*edge, *(choices[ensemble] for ensemble in scored)])
    rest = [choice for choice in choices.values() if choice not in kept]
    room = max(0, _POINTS - len(kept))
    shown = [*kept, *rest[:room]]
    drawn = frontier_chart(METRIC_WORDS[search["metric"]], shown, lower)
    few = f" Of {len(every):,} scored ensembles the {len(shown):,} best and simplest are drawn." if rest[room:] else ""
    bounded = 2 * len(search["ensembles"]) < search["considered"]
    ruled = f" Most of {search['considered']:,} were ruled out by bounds and have no score." if bounded else ""
    note = f"Joined by the line: nothing as cheap is better. The filled dot is the chosen one.{few}{ruled}"
    return joined([tag("h3", "What a better score costs"), tag("p", note, kind="soft"), tag("div", drawn, kind="wide")])


def _members(search: Mapping[str, Any], ensemble: Sequence[int]) -> str:
    """The members by name; of many, how many."""
    names = [search["members"][place]["name"] for place in ensemble]
    return " + ".join(names) if len(names) <= _NAMED else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _badge(best: bool, simpler: Mapping[str, Any] | None) -> Html:
    badges = [tag("span", "chosen", kind="tag good")] if best else []
    badges += [tag("span", simpler["label"].split(" (")[0], kind="tag")] if simpler is not None else []
    return joined(badges)


def _comparisons(search: Mapping[str, Any]) -> Html:
    rows = [
        [
            found["label"],
            f"{found['score']:.4f}",
            f"{found['difference']:+.4f}",
            tag("span", f"{found['difference_low']:+.4f} to {found['difference_high']:+.4f}", kind="whole"),
            "as good" if found["as_good"] else "not as good",
        ]
        for found in search["comparisons"]
    ]
    if not rows:
        return Html("")
    head = ["simpler choice", "score", "lead of the chosen", "95 % interval (paired)", "so it is"]
    return joined([tag("h3", "The chosen against simpler choices"), table(head, rows)])
