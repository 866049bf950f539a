"""`foldfleet store check | ls | gc`: what a person sees, exit codes, next steps; only an idle store loses anything."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished_run import finished_run

from coordinator.generation import Chain, Hold, Watch, take, this_process
from coordinator.outputs import publish_known
from jobs import store as command
from shared_store import layout
from shared_store.backend import Content
from shared_store.cache import Cache
from shared_store.commits import digest_of, put_commit, read_result
from shared_store.records import Commit, sha256
from shared_store.store import Store, open_store

DAY = 24 * 3600.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and a fold under way with what it superseded; all of it two days old."""
    folder = tmp_path_factory.mktemp("finished")
    store, cache = open_store(str(folder / "store")), Cache(folder / "cache", 1.0)
    made = finished_run(store, cache)
    made.data.record(store, "demo")
    publish_known(store, made.known(), cache)
    parent = None
    for number in range(1, 6):
        blobs = {"state": store.put_blob(f"state {number}".encode())}
        commit = Commit("fold", number, parent, "spec", 1, "nonce", 2, 17, blobs)
        put_commit(store, commit)
        parent = digest_of(commit)
    for path in (folder / "store").rglob("*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 2 * DAY))
    return folder / "store"


@pytest.fixture
def url(finished: Path, tmp_path: Path) -> str:
    """A copy to do harm to."""
    shutil.copytree(finished, tmp_path / "store")
    return str(tmp_path / "store")


def files(url: str) -> set[str]:
    return {str(path.relative_to(url)) for path in Path(url).rglob("*") if path.is_file()}


@contextlib.contextmanager
def driver(store: Store, run: str) -> Iterator[Hold]:
    """A process that drives a run; it lives, with a quick beat, while the context does."""
    chain = Chain(store, layout.coordinators(run))
    hold, ends = Hold(chain, take(chain, this_process(run), Watch(print)), print), threading.Event()

    def live() -> None:
        while not ends.wait(0.1):
            hold.beat()
        hold.beat(ended=True)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield hold
    finally:
        ends.set()
        thread.join()


def test_check_of_a_right_store(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(url)
    assert command.main(["check", url]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "every byte is right" in told.out
    assert f"next: foldfleet store gc {url}" in told.out
    assert "MB/s" in told.out, "a long reading is seen to go on"
    assert "left behind by killed writers, or put aside: nothing" in told.out
    assert files(url) == before


def test_check_of_a_damaged_store_names_what_is_wrong_and_the_next_step(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(url)
    result = next(entry.key for entry in store.list("results/bundle"))
    bundle = read_result(store, result.removeprefix("results/").removesuffix(".json"))
    assert bundle is not None
    damaged = bundle.blobs["file:bundle.json"]
    store.backend.publish(layout.blob(damaged), Content(b"{}"))
    store.publish("results/forged.json", b"{}")
    assert command.main(["check", url]) == 1
    told = capsys.readouterr()
    assert (
        f"{layout.blob(damaged)}: damaged: its bytes do not match its name, and named by {result}\n  mend:" in told.out
    )
    assert "results/forged.json: not the record that belongs there" in told.out
    assert told.err.splitlines() == [
        "foldfleet store: 2 things are wrong",
        f"next: foldfleet store check {url} --quarantine",
    ]
    assert command.main(["check", url, "--quarantine"]) == 1
    assert "next: mend what is named above" in capsys.readouterr().err
    assert store.exists(layout.damaged(damaged)) and not store.has_blob(damaged)


def test_ls_shows_kinds_runs_and_tasks_in_100_columns(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(url)
    with driver(store, "demo"):
        assert command.main(["ls", url]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert max(len(line) for line in out.splitlines() if not line.startswith("next: ")) <= 100
    assert ["results", "9"] in [row[:2] for row in rows]
    assert any(row[:1] == ["demo"] and "process" in row and str(os.getpid()) in row for row in rows)
    assert any(row[:2] == ["fold", "begun"] and row[2:5] == ["5", "2", "17"] for row in rows)
    assert sum(row[1:2] == ["done"] for row in rows) == 9
    assert f"next: foldfleet store check {url}" in out


def test_ls_below_a_prefix_shows_every_key(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["ls", url, "blobs/"]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if not line.startswith("next: ")) <= 100
    assert {key for key in files(url) if key.startswith("blobs/")} == {
        line.split()[0] for line in out.splitlines() if line.startswith("blobs/")
    }


def test_ls_names_a_damaged_record_and_goes_on(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(url)
    store.publish("commits/fold/5.json", b"{")
    store.publish("coordinators/demo/1.json", b"{")
    assert command.main(["ls", url]) == 0
    out = capsys.readouterr().out
    assert "damaged record" in out and "a record cannot be used" in out


def test_gc_is_a_dry_run_until_it_is_told_to_delete(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store, before = open_store(url), files(url)
    unneeded = {layout.blob(sha256(f"state {number}".encode())) for number in (1, 2)}
    young = layout.blob(store.put_blob(b"just written, and not yet named"))
    assert command.main(["gc", url]) == 0
    out = capsys.readouterr().out
    assert "2 files, 14 bytes would go; nothing is changed" in out
    assert "younger than 24 hours: 1 file, 31 bytes" in out
    assert f"next: foldfleet store gc {url} --delete --grace-hours 24" in out
    assert files(url) == before | {young}
    assert command.main(["gc", url, "--delete"]) == 0
    assert "removed 2 files, 14 bytes" in capsys.readouterr().out
    removed = (before | {young}) - files(url)
    assert removed == unneeded
    assert command.main(["gc", url, "--delete"]) == 0
    assert "removed 0 files" in capsys.readouterr().out
    assert command.main(["check", url]) == 0


def test_gc_refuses_while_anyone_drives_a_run_and_says_who(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(url)
    with driver(store, "another run") as hold:
        before = {key for key in files(url) if key.startswith("blobs/")}
        assert command.main(["gc", url, "--delete"]) == 2
        told = capsys.readouterr()
        assert "the run another run is being driven" in told.err
        assert str(hold.mine) in told.err
        assert "watching for up to" in told.out
    assert before == {key for key in files(url) if key.startswith("blobs/")}
    assert command.main(["gc", url, "--delete"]) == 0, "it ended"


def test_gc_beside_a_damaged_record_removes_nothing_and_sends_to_check(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = next(entry.key for entry in open_store(url).list("results/bundle"))
    open_store(url).publish(key, b"{}")
    before = {name for name in files(url) if name.startswith("blobs/")}
    assert command.main(["gc", url, "--delete"]) == 2
    told = capsys.readouterr().err
    assert f"where: {key}" in told and f"mend:  see what is wrong and mend it: foldfleet store check {url}" in told
    assert before == {name for name in files(url) if name.startswith("blobs/")}


@pytest.mark.parametrize("words", [["check"], ["ls"], ["gc"], ["gc", "--delete"]])
def test_a_url_with_nothing_behind_it_is_told_and_nothing_is_made(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "mistyped")
    assert command.main([words[0], url, *words[1:]]) == 2
    assert "there is nothing in this store" in capsys.readouterr().err
    assert not Path(url).exists()
