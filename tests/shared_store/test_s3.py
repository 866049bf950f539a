"""What is special to S3; what every store promises is in test_contract.py."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import botocore.session
import pytest
from relay import Relay, answering, cut_the_answer, cut_the_request, lose_the_answer, relaying, stay_silent
from s3_server import S3Server, running_s3

from shared_store.backend import PART_BYTES, Content
from shared_store.errors import (
    NotExclusiveError,
    StoreDownError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
)
from shared_store.retrying import Retrying
from shared_store.s3 import S3Backend, part_bytes_of
from shared_store.store import Store, open_store

LARGE = os.urandom(3 * PART_BYTES + 7)  # an upload of two parts
KEY = "runs/demo/file"
_places = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def url(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty part of the bucket, in the settings that lead there."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.url(f"place{next(_places)}")


@pytest.fixture
def backend(url: str) -> Iterator[S3Backend]:
    backend = S3Backend(url)
    yield backend
    backend.close()


@pytest.fixture
def relay(url: str, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """All goes through it, once the first connection is made."""
    with relaying(urlsplit(server.endpoint_url).port or 0) as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.port}")
        yield relay


def whole(backend: S3Backend | Retrying, key: str = KEY) -> bytes | None:
    parts = backend.parts(key)
    return None if parts is None else b"".join(parts)


def patient(backend: S3Backend, meanwhile: Callable[[], object] = lambda: None) -> Store:
    """The store as `open_store` makes it, where waiting is doing something else."""

    def wait(_seconds: float) -> None:
        meanwhile()

    return Store(Retrying(backend, sleep=wait))


# Uploads show as a whole or not at all


class Broken(Content):
    """Bytes that end in an error after a few parts."""

    def __init__(self, good_parts: int, error: BaseException) -> None:
        super().__init__(LARGE)
        self._good_parts, self._error = good_parts, error

    def __iter__(self) -> Iterator[memoryview]:
        yield from itertools.islice(super().__iter__(), self._good_parts)
        raise self._error


@pytest.mark.parametrize("good_parts", [0, 1, 3])
@pytest.mark.parametrize("error", [OSError("disk gone"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_amid_an_upload_leaves_no_object_and_no_open_upload(
    backend: S3Backend, good_parts: int, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        backend.publish(KEY, Broken(good_parts, error))
    assert whole(backend) is None
    assert backend.list("") == []
    assert backend.leftovers() == []


def test_a_part_that_never_arrives_leaves_no_object_and_no_open_upload(relay: Relay, backend: S3Backend) -> None:
    relay.harm(cut_the_request, "partNumber=2", times=99)
    with pytest.raises(StoreDownError):
        backend.publish(KEY, Content(LARGE))
    assert whole(backend) is None
    assert backend.leftovers() == []


def test_one_bad_part_is_sent_again_alone(relay: Relay, backend: S3Backend) -> None:
    relay.harm(cut_the_request, "partNumber=2")
    backend.publish(KEY, Content(LARGE))
    assert whole(backend) == LARGE
    assert sum("partNumber=1" in head for head in relay.seen) == 1
    assert sum("partNumber=2" in head for head in relay.seen) == 2


class Grown(Content):
    """A file that has other bytes than it said at first."""

    def __init__(self, size: int) -> None:
        super().__init__(LARGE)
        self._size = size

    @property
    def size(self) -> int:
        return self._size


@pytest.mark.parametrize("size", [0, 10, len(LARGE) - 1, len(LARGE) + 1])
def test_a_file_that_changes_while_it_is_sent_is_not_published(backend: S3Backend, size: int) -> None:
    with pytest.raises(StoreError, match=r"when it was sent"):
        backend.publish(KEY, Grown(size))
    assert whole(backend) is None
    assert backend.leftovers() == []


def test_an_upload_whose_end_was_not_acknowledged_stands_and_leaves_nothing_open(
    relay: Relay, backend: S3Backend
) -> None:
    relay.harm(lose_the_answer, "?uploadId=")
    patient(backend).backend.publish(KEY, Content(LARGE))
    assert whole(backend) == LARGE
    assert backend.leftovers() == []


def test_an_upload_whose_beginning_was_not_acknowledged_is_found_later(relay: Relay, backend: S3Backend) -> None:
    relay.harm(lose_the_answer, "?uploads")
    backend.publish(KEY, Content(LARGE))
    assert whole(backend) == LARGE
    assert [left.bytes for left in backend.leftovers()] == [0]


def _die_amid_an_upload(url: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)

    class Deadly(Content):
        def __iter__(self) -> Iterator[memoryview]:
            yield from itertools.islice(super().__iter__(), 2)
            while sum(left.bytes for left in backend.leftovers()) < 2 * PART_BYTES:
                time.sleep(0.05)
            os._exit(9)

    backend = S3Backend(url)
    backend.publish(KEY, Deadly(LARGE))


def test_what_a_killed_writer_leaves_is_found_with_its_size_and_removed_by_its_key(
    server: S3Server, backend: S3Backend
) -> None:
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=_die_amid_an_upload, args=(backend.url, server.environment))
    writer.start()
    writer.join(60)
    assert writer.exitcode == 9
    assert whole(backend) is None
    backend.put_if_absent("results/now.json", b"{}")
    (left,) = backend.leftovers()
    (now,) = backend.list("")
    assert left.key.startswith(f"{KEY}?uploadId=")
    assert left.bytes == 2 * PART_BYTES, "what had arrived when it died"
    for _ in range(2):
        backend.delete(left.key)
        assert backend.leftovers() == []
    assert backend.list("") == [now]


@pytest.mark.parametrize("size", [0, 1, 2**23, 2**32, 212_000_000, 10**11, 5 * 2**40])
def test_an_upload_has_neither_too_many_nor_too_small_parts(size: int) -> None:
    assert part_bytes_of(size) >= 5 * 2**20
    assert part_bytes_of(size) <= 5 * 2**30
    assert part_bytes_of(size) * 10_000 >= size


def test_many_buffers_of_odd_sizes_arrive_as_one(backend: S3Backend) -> None:
    cuts = [0, 1, 2, 1_000_003, 7_000_000, 7_000_000, 9_345_678, len(LARGE)]
    buffers = [LARGE[start:end] for start, end in itertools.pairwise(cuts)]
    backend.publish(KEY, Content(buffers))
    assert whole(backend) == LARGE


@pytest.mark.parametrize("when", ["when_supported", "when_required"])
def test_parts_carry_checksums_that_the_upload_announces_unless_settings_forbid_it(
    relay: Relay, backend: S3Backend, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", when)
    backend.publish(KEY, Content(LARGE))
    assert whole(backend) == LARGE
    begun = [head.lower() for head in relay.seen if "?uploads" in head]
    parts = [head.lower() for head in relay.seen if "?partNumber=" in head]
    assert ["x-amz-checksum-algorithm: crc32" in head for head in begun] == [when == "when_supported"]
    assert ["x-amz-checksum-crc32: " in head for head in parts] == [when == "when_supported"] * 2


def test_a_large_file_takes_little_memory(backend: S3Backend) -> None:
    piece = os.urandom(PART_BYTES)
    backend.publish("warm", Content([piece] * 4))
    tracemalloc.start()
    try:
        backend.publish(KEY, Content([piece] * 24))
        parts = backend.parts(KEY)
        assert parts is not None
        assert all(part == piece for part in parts)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert backend.size(KEY) == 24 * PART_BYTES
    assert peak_bytes <= 48 * 10**6


# Of many writers one wins


@pytest.mark.parametrize("times", [1, 3], ids=["heard by botocore", "heard by Retrying"])
def test_a_put_whose_answer_was_lost_is_won_and_not_doubled(relay: Relay, backend: S3Backend, times: int) -> None:
    store = patient(backend)
    relay.harm(lose_the_answer, "PUT", times)
    assert store.put_if_absent("results/fold.json", b"ours")
    assert sum(head.startswith("PUT") for head in relay.seen) == times + 1, "it was sent again"
    assert store.read("results/fold.json") == b"ours"
    assert not store.put_if_absent("results/fold.json", b"theirs")


def test_a_put_whose_answer_was_lost_after_another_won_is_not_ours(relay: Relay, backend: S3Backend) -> None:
    store = patient(backend)
    store.put_if_absent("results/fold.json", b"theirs")
    relay.harm(lose_the_answer, "PUT", times=3)
    assert not store.put_if_absent("results/fold.json", b"ours")
    assert store.read("results/fold.json") == b"theirs"


def test_a_conflict_between_two_writers_is_tried_again(relay: Relay, backend: S3Backend) -> None:
    relay.harm(answering("409 Conflict", "ConditionalRequestConflict"), "PUT")
    assert patient(backend).put_if_absent("results/fold.json", b"ours")


def test_a_server_that_cannot_put_if_absent_says_so(relay: Relay, backend: S3Backend) -> None:
    relay.harm(answering("501 Not Implemented", "NotImplemented"), "PUT", times=9)
    with pytest.raises(NotExclusiveError, match="put if absent"):
        patient(backend).put_if_absent("results/fold.json", b"ours")


def test_an_empty_record_is_our_own_mistake(backend: S3Backend) -> None:
    with pytest.raises(AssertionError, match="empty"):
        backend.put_if_absent("results/fold.json", b"")
    assert backend.list("") == []


# Trouble on the way


def test_a_server_that_is_down_is_waited_for(relay: Relay, backend: S3Backend) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            relay.up()

    store = Store(Retrying(backend, sleep=wait))
    store.publish(KEY, b"before")
    relay.down()
    assert store.read(KEY) == b"before"
    assert len(waits) == 2


def test_a_server_that_stays_down_is_told_about(relay: Relay, backend: S3Backend) -> None:
    relay.down()
    ticks = itertools.count(0.0, 100.0)
    store = Store(Retrying(backend, clock=lambda: next(ticks), sleep=lambda _seconds: None))
    with pytest.raises(StoreDownError, match="does not answer"):
        store.read(KEY)
    relay.up()
    assert store.read(KEY) is None


def test_a_server_that_falls_silent_counts_as_down(relay: Relay, url: str) -> None:
    relay.harm(stay_silent, KEY, times=3)
    backend = S3Backend(url, silent_seconds=0.2)
    with pytest.raises(StoreDownError):
        backend.parts(KEY)
    assert backend.parts(KEY) is None


def test_a_busy_server_is_asked_again(relay: Relay, backend: S3Backend) -> None:
    backend.publish(KEY, Content(b"kept"))
    relay.harm(answering("503 Slow Down", "SlowDown"), "GET")
    assert whole(backend) == b"kept"


def test_a_full_bucket_is_not_asked_again(relay: Relay, backend: S3Backend) -> None:
    relay.harm(answering("403 Forbidden", "QuotaExceeded"), "PUT", times=1)
    with pytest.raises(StoreFullError, match="QuotaExceeded"):
        patient(backend).publish(KEY, b"more")


def test_reading_goes_on_where_it_was_cut_off(relay: Relay, backend: S3Backend) -> None:
    backend.publish(KEY, Content(LARGE))
    relay.harm(cut_the_answer, f"bytes={2 * PART_BYTES}-", times=2)
    assert whole(Retrying(backend, sleep=lambda _seconds: None)) == LARGE
    assert sum("bytes=0-" in head for head in relay.seen) == 1, "what was read is not read again"


def test_a_file_replaced_while_it_is_read_is_not_mixed_with_the_new_one(backend: S3Backend) -> None:
    backend.publish(KEY, Content(LARGE))
    parts = backend.parts(KEY)
    assert parts is not None
    next(parts)
    backend.publish(KEY, Content(LARGE[::-1]))
    with pytest.raises(StoreError, match="replaced"):
        list(parts)


# Who we are, and where


@pytest.fixture
def accounts(server: S3Server, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Only the file has credentials: a key and its secret, once they are written there. The server may check them."""
    credentials = Path(server.environment["AWS_SHARED_CREDENTIALS_FILE"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    def write(key: str, secret: str) -> None:
        credentials.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")

    yield write
    credentials.write_text("")
    _check_credentials(server, after_actions="inf")


def _check_credentials(server: S3Server, after_actions: str) -> None:
    address, data = f"{server.endpoint_url}/moto-api/reset-auth", after_actions.encode()
    request = urllib.request.Request(address, data, {"Content-Type": "text/plain"}, method="POST")
    with urllib.request.urlopen(request, timeout=30):
        pass


def _new_key() -> tuple[str, str]:
    """A key that may do everything."""
    iam = botocore.session.get_session().create_client(
        "iam", "us-east-1", aws_access_key_id="root", aws_secret_access_key="root"
    )
    name = f"user{next(_places)}"
    iam.create_user(UserName=name)
    allow = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=allow)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def test_new_credentials_in_the_file_work_without_a_new_process(
    server: S3Server, url: str, accounts: Callable[[str, str], None]
) -> None:
    key, secret = _new_key()
    _check_credentials(server, after_actions="0")
    accounts("AKIAUNKNOWNUNKNOWN", "wrong")
    with pytest.raises(StoreRefusedError, match="InvalidAccessKeyId"):
        patient(S3Backend(url)).publish(KEY, b"refused")
    store = patient(S3Backend(url), meanwhile=lambda: accounts(key, secret))
    store.publish(KEY, b"accepted")
    assert store.read(KEY) == b"accepted"
    accounts(key, "not the secret any more")
    assert store.read(KEY) == b"accepted", "a connection that works is not given up"
    store.backend.close()
    with pytest.raises(StoreRefusedError, match="SignatureDoesNotMatch"):
        S3Backend(url).size(KEY)


def test_no_credentials_at_all_are_asked_for(url: str, accounts: Callable[[str, str], None]) -> None:
    with pytest.raises(StoreRefusedError) as refused:
        S3Backend(url).size(KEY)
    assert "~/.aws/credentials" in refused.value.mend


def test_a_profile_of_the_config_file_leads_to_its_server(
    server: S3Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    keys = "aws_access_key_id = a\naws_secret_access_key = b\n"
    config.write_text(f"[profile lab]\nregion = eu-central-1\nendpoint_url = {server.endpoint_url}\n{keys}")
    for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store = open_store(url)
    store.publish(KEY, b"by profile")
    assert store.read(KEY) == b"by profile"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreRefusedError, match="nobody"):
        S3Backend(url).size(KEY)


def test_the_variable_for_s3_alone_names_the_server(
    server: S3Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint_url)
    assert S3Backend(url).size(KEY) is None


def test_an_endpoint_that_is_no_url_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(StoreError, match="localhost:9000"):
        S3Backend(url).size(KEY)


def test_a_missing_bucket_is_named_at_once_and_never_made(url: str) -> None:
    backend = S3Backend("s3://nobodys-bucket/place")
    acts: list[Callable[[], object]] = [
        lambda: backend.put_if_absent(KEY, b"data"),
        lambda: backend.publish(KEY, Content(b"data")),
        lambda: backend.publish(KEY, Content(LARGE)),
        lambda: backend.parts(KEY),
        lambda: backend.size(KEY),
        lambda: backend.move(KEY, "runs/demo/other"),
        lambda: backend.delete(KEY),
        lambda: backend.list(""),
        backend.leftovers,
    ]
    for act in acts:
        with pytest.raises(StoreError, match="no such S3 bucket") as error:
            act()
        assert type(error.value) is StoreError
        assert "make the bucket" in error.value.mend


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(StoreError, match="no bucket"):
        open_store("s3:///place")


@pytest.mark.parametrize("prefix", ["", "my place/of things", "a+b&c=d%20e"])
def test_prefixes_of_any_kind_hold_keys_of_their_own(server: S3Server, url: str, prefix: str) -> None:
    name = f"{prefix or 'root'} {next(_places)}.txt"
    backend = S3Backend(f"{server.url(prefix)}/")
    backend.publish(f"runs/{name}", Content(b"spaced"))
    backend.move(f"runs/{name}", f"runs/moved {name}")
    assert whole(backend, f"runs/moved {name}") == b"spaced"
    assert [entry.key for entry in backend.list(f"runs/moved {name}")] == [f"runs/moved {name}"]
    backend.delete(f"runs/moved {name}")
    assert backend.list(f"runs/moved {name}") == []


def test_listings_are_never_stale(url: str) -> None:
    ours, theirs = open_store(url), open_store(url)
    for number in range(3):
        theirs.publish(f"runs/demo/{number}", b"new")
        assert [entry.key for entry in ours.list("runs/")] == [f"runs/demo/{place}" for place in range(number + 1)]
    theirs.backend.delete("runs/demo/1")
    assert [entry.key for entry in ours.list("runs/")] == ["runs/demo/0", "runs/demo/2"]
    theirs.publish("runs/demo/0", b"longer")
    assert [entry.bytes for entry in ours.list("runs/")] == [6, 3]


def test_a_listing_of_many_pages_is_whole(backend: S3Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"runs/demo/{number:04}" for number in range(7)]
    for key in keys:
        backend.put_if_absent(key, b"x")
    pages = backend._pages(
        "list_objects_v2", ("ContinuationToken",), Prefix=f"{backend.url.split('/')[-1]}/", MaxKeys=3
    )
    counts = [len(page["Contents"]) for page in pages]
    assert counts == [3, 3, 1]


def test_what_a_console_leaves_to_show_a_folder_is_no_entry(backend: S3Backend) -> None:
    backend.publish("runs/demo/", Content(b""))
    backend.publish(KEY, Content(b"data"))
    assert [entry.key for entry in backend.list("")] == [KEY]
