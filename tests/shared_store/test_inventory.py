"""What a text names, and which kind a key is of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_store.inventory import digests_in, kind_of, may_name_blobs, newest_commits
from shared_store.records import sha256

DIGESTS = st.integers(0, 99).map(lambda number: sha256(str(number).encode()))
BETWEEN = st.sampled_from(["", " ", '"', "\\n", "\\b", "a", "0", "sha256:", "\n", "é", "A" * 70])


@given(st.lists(st.tuples(BETWEEN, DIGESTS)), st.lists(st.integers(1, 80), min_size=1))
def test_every_digest_in_a_text_is_found_however_the_text_is_cut(words: list[tuple[str, str]], cuts: list[int]) -> None:
    """Also after a letter that might belong to it, as JSON's escapes end in, and beside another digest."""
    text = "".join(between + digest for between, digest in words).encode()
    parts, place = [], 0
    while place < len(text):
        cut = cuts[len(parts) % len(cuts)]
        parts.append(text[place : place + cut])
        place += cut
    found = digests_in(parts)
    assert {digest for _, digest in words} <= found
    assert found == digests_in([text])


def test_what_is_too_short_or_no_hex_names_nothing() -> None:
    assert digests_in([b"0" * 63, b" ", b"f" * 63, b"G" * 64, b"A" * 64]) == set()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("blobs/" + "0" * 64, "blobs"),
        ("blobs/.00.part", "unfinished"),
        ("blobs/0?uploadId=1", "unfinished"),
        ("runs/demo/folds/teacher/train.log", "runs"),
        ("coordinators/demo/1.beat", "coordinators"),
        ("README.md", "other"),
        ("blobs", "other"),
        ("photos/cat.jpg", "other"),
    ],
)
def test_the_kind_of_a_key(key: str, kind: str) -> None:
    assert kind_of(key) == kind


def test_whatever_is_not_known_to_hold_bytes_is_read_for_names() -> None:
    assert all(map(may_name_blobs, ["results/a.json", "runs/a/data.json", "runs/a/notes", "new-kind/a", "note.txt"]))
    assert not any(map(may_name_blobs, ["blobs/0", "logs/a/train.log", "runs/a/bundle/model.onnx", "incoming/a"]))


def test_the_newest_commits_of_a_listing() -> None:
    keys = ["commits/a/1.json", "commits/a/10.json", "commits/a/9.json", "commits/b/2.json", "commits/b/x.json"]
    assert newest_commits(keys) == {"a": 10, "b": 2}
