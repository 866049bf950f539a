"""The report's part on ensembles: the leaderboard with intervals, and the chosen against simpler choices. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.charts import interval_bar
from coordinator.known import Known
from coordinator.page import Html, joined, section, table, tag

METRICS = {"mean_ap": "mAP", "top_class_ap": "top-class mAP", "accuracy": "accuracy", "log_loss": "log loss"}
_TOP_ROWS = 10


def ensembles(known: Known) -> Html:
    """Nothing before the search is done."""
    if known.search is None:
        return Html("")
    search, names = known.search, [member["name"] for member in known.search["members"]]
    simpler = {tuple(found["ensemble"]): found for found in search["comparisons"]}
    winner = search["winner"]
    leaders = search["leaderboard"][:_TOP_ROWS]
    beside = [row for row in search["leaderboard"][_TOP_ROWS:] if tuple(row["ensemble"]) in simpler]
    shown = leaders + beside
    within = (min(row["score_low"] for row in shown), max(row["score_high"] for row in shown))
    metric = METRICS[search["metric"]]
    lower = ", lower is better" if search["lower_is_better"] else ""
    rows = []
    for row in shown:
        ensemble, best = tuple(row["ensemble"]), row["ensemble"] == winner["ensemble"]
        members = [search["members"][place] for place in ensemble]
        bar = interval_bar(
            row["score"], (row["score_low"], row["score_high"]), within=within, guide=winner["score"], best=best
        )
        label = joined([" + ".join(names[place] for place in ensemble), _badge(best, simpler.get(ensemble))])
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
    return section("Ensembles", tag("p", note, kind="soft"), table(head, rows, mark), _comparisons(search))


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
