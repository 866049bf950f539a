"""What is wrong with which machine, and how to mend it: the rules that judge what machines said of themselves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.card_checks import base, card_findings, unusable_devices
from coordinator.findings import Finding, failed, warned, well
from workers.examined import Examined, Trained
from workers.footprint import Footprint
from workers.recipe import Recipe

_SAME_EVERYWHERE = ("ray", "torch")
_BETTER_THE_SAME = ("torchvision", "timm", "albumentations", "numpy", "opencv-python-headless")
_LEAST_DISK_GB, _GOOD_DISK_GB = 1.0, 5.0
_SLOW_STORE = 1.0  # MB a second
_CLOCK_WARNS_SECONDS, _CLOCK_FAILS_SECONDS = 30.0, 300.0
_FAR_SECONDS = 0.3  # to open a connection


@dataclass(frozen=True)
class Answer:
    """What came back from one machine. Times are unix seconds of the clock of whoever asked."""

    machine: str  # what people call it
    examined: Examined | None
    asked_at: float = 0.0
    answered_at: float = 0.0
    failure: str = ""  # why nothing came back
    mend: str = ""
    in_fleet: bool | None = None  # whether the head counts it as alive; None: not asked


@dataclass(frozen=True)
class Expected:
    """What the machines are held against."""

    head: Examined | None = None  # the versions that all must have; None: nothing to compare with
    recipes: Mapping[str, Recipe] = field(default_factory=dict)  # by name
    footprints: Mapping[str, Footprint] = field(default_factory=dict)


Rule = Callable[[str, Answer, Examined, Expected], Iterable[Finding]]


def judge(answers: Sequence[Answer], expected: Expected) -> list[Finding]:
    """Every check of every machine, check by check in the order of RULES."""
    found = [finding for answer in answers for finding in _of(answer, expected)]
    order = {check: place for place, check in enumerate(dict.fromkeys(one.check for one in found))}
    return sorted(found, key=lambda one: order[one.check])


def _of(answer: Answer, expected: Expected) -> Iterator[Finding]:
    name, examined = answer.machine, answer.examined
    if examined is None:
        yield failed(name, "answer", answer.failure, answer.mend)
        return
    for rule in RULES:
        yield from rule(name, answer, examined, expected)


def _python(machine: str, _answer: Answer, examined: Examined, expected: Expected) -> Iterator[Finding]:
    own = examined.versions["python"]
    theirs = own if expected.head is None else expected.head.versions["python"]
    if own == theirs:
        yield well(machine, "Python", own)
    else:
        mend = f"make its environment with Python {theirs}: all machines of a fleet have the same"
        yield failed(machine, "Python", f"{own}, the head has {theirs}", mend)


def _packages(machine: str, _answer: Answer, examined: Examined, expected: Expected) -> Iterator[Finding]:
    head = examined if expected.head is None else expected.head
    for package in _SAME_EVERYWHERE:
        own, theirs = examined.versions.get(package), head.versions.get(package)
        if own is None:
            yield failed(machine, package, "not installed", f"pip install {package}=={theirs or ''}".rstrip("="))
        elif theirs is None or base(own) == base(theirs):
            yield well(machine, package, own)
        else:
            yield failed(machine, package, f"{own}, the head has {theirs}", f"pip install {package}=={base(theirs)}")
    others = [
        f"{package} {examined.versions.get(package, 'is missing')} (head {head.versions[package]})"
        for package in _BETTER_THE_SAME
        if package in head.versions and base(examined.versions.get(package, "")) != base(head.versions[package])
    ]
    if others:
        yield warned(machine, "packages", ", ".join(others), "install the head's versions: results may differ")
    elif expected.head is not None:
        yield well(machine, "packages", "as on the head")


def _code(machine: str, _answer: Answer, examined: Examined, expected: Expected) -> Iterator[Finding]:
    if expected.head is None:
        return
    own, theirs = examined.code, expected.head.code
    version = f"{examined.versions.get('foldfleet', '')} ({own})".strip()
    if own == theirs:
        yield well(machine, "foldfleet", version)
    else:
        mend = "`foldfleet up` sends this project's code; elsewhere update the checkout"
        yield warned(machine, "foldfleet", f"{version} is other code than the head's ({theirs})", mend)


def _member(machine: str, answer: Answer, examined: Examined, expected: Expected) -> Iterator[Finding]:
    """A machine that cannot be in the fleet for its versions is told so by those."""
    if answer.in_fleet is None or not _versions_do(examined, expected):
        return
    if answer.in_fleet:
        yield well(machine, "fleet", "the head counts it as alive")
    else:
        yield failed(machine, "fleet", "it is not in the fleet", "foldfleet up cluster.yaml")


def _versions_do(examined: Examined, expected: Expected) -> bool:
    head = examined if expected.head is None else expected.head
    return all(examined.versions.get(name) == head.versions.get(name) for name in ("python", "ray"))


def _cards(machine: str, _answer: Answer, examined: Examined, expected: Expected) -> Iterator[Finding]:
    yield from card_findings(machine, examined, expected.footprints)


def _training(machine: str, _answer: Answer, examined: Examined, expected: Expected) -> Iterator[Finding]:
    """What a few steps took. Where the versions of torch are told to be wrong, how it fails is no news."""
    head = examined if expected.head is None else expected.head
    told = base(examined.versions.get("torch", "")) != base(head.versions.get("torch", ""))
    for trained in examined.trained:
        recipe = expected.recipes[trained.recipe]
        what = f"{trained.recipe or recipe.model} at {recipe.image_size} px, batch {recipe.batch_size}"
        if trained.step_seconds is not None:
            yield well(machine, "training", f"{what}: {_rate(trained, recipe):.3g} images/s on {trained.device}")
        elif not told and trained.device not in unusable_devices(examined):
            mend = _training_mend(trained)
            yield failed(machine, "training", f"{what} on {trained.device}: {trained.failure}", mend)


def _rate(trained: Trained, recipe: Recipe) -> float:
    return recipe.batch_size / (trained.step_seconds or 1.0)


def _training_mend(trained: Trained) -> str:
    if "memory" in trained.failure:
        return "a smaller recipe.micro_batch or image_size, recipe.checkpointing true, or a machine with more memory"
    return f"mend what that says on that machine ({trained.device})"


def _disk(machine: str, _answer: Answer, examined: Examined, _expected: Expected) -> Iterator[Finding]:
    folder, free = min(examined.free_disk_gb.items(), key=lambda one: one[1])
    found, mend = f"{free:.1f} GB free at {folder}", "free some space there, or set store.cache_folder to a larger disk"
    if free < _LEAST_DISK_GB:
        yield failed(machine, "disk", found, mend)
    elif free < _GOOD_DISK_GB:
        yield warned(machine, "disk", found, mend)
    else:
        yield well(machine, "disk", found)


def _store(machine: str, _answer: Answer, examined: Examined, _expected: Expected) -> Iterator[Finding]:
    store = examined.store
    if store is None:
        return
    if store.failure:
        yield failed(machine, "store", store.failure, store.mend)
        return
    write, read = store.write_mb_per_second or 0.0, store.read_mb_per_second or 0.0
    found = f"writes {write:.3g} MB/s, reads {read:.3g} MB/s"
    if store.not_exclusive:
        mend = "none is needed: the coordinator alone will commit; another store lets every machine do so"
        yield warned(machine, "store", f"{found}; several writers may win: {store.not_exclusive}", mend)
    elif write < _SLOW_STORE:
        mend = "a wired link; or a longer recipe.checkpoint_minutes and a smaller store.upload_share"
        yield warned(machine, "store", f"{found}: commits will be late", mend)
    else:
        yield well(machine, "store", f"{found}, one writer wins")


def _doors(machine: str, _answer: Answer, examined: Examined, _expected: Expected) -> Iterator[Finding]:
    if not examined.reached:
        return
    shut = [one for one in examined.reached if one.failure]
    if shut:
        hosts = ", ".join(dict.fromkeys(one.door.rpartition(":")[0] for one in shut))
        what = f"{len(shut)} of {len(examined.reached)} ports shut, of {hosts} ({shut[0].door}: {shut[0].failure})"
        mend = "open the firewalls between these machines: each must reach all others"
        yield failed(machine, "ports", what, mend)
        return
    slowest = max(one.seconds or 0.0 for one in examined.reached)
    found = f"all {len(examined.reached)} reached, within {1e3 * slowest:.3g} ms"
    if slowest > _FAR_SECONDS:
        yield warned(machine, "ports", found, "a nearer machine, or fewer commits: each crosses this link")
    else:
        yield well(machine, "ports", found)


def _clock(machine: str, answer: Answer, examined: Examined, _expected: Expected) -> Iterator[Finding]:
    """Against the clock of whoever asked, between question and answer; it was read before the examination."""
    now = examined.unix_seconds
    off = now - min(max(now, answer.asked_at), answer.answered_at - examined.took_seconds)
    if abs(off) < _CLOCK_WARNS_SECONDS:
        yield well(machine, "clock", "right")
        return
    how = failed if abs(off) >= _CLOCK_FAILS_SECONDS else warned
    found = f"{_span(abs(off))} {'fast' if off > 0 else 'slow'}"
    mend = "set it by network time there (timedatectl set-ntp true; Windows: w32tm /resync): S3 and --until go by it"
    yield how(machine, "clock", found, mend)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _proxy(machine: str, _answer: Answer, examined: Examined, _expected: Expected) -> Iterator[Finding]:
    if not examined.proxies:
        return
    variables = ", ".join(f"{name}={value}" for name, value in examined.proxies.items())
    mend = "put the machines' addresses into no_proxy there, and begin Ray again: its connections would go that way"
    yield warned(machine, "proxy", variables, mend)


RULES: tuple[Rule, ...] = (
    _python, _packages, _code, _member, _cards, _training, _disk, _store, _doors, _clock, _proxy,
)  # fmt: skip
"""In the order in which a person mends things: what the others rest on comes first."""
