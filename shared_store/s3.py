"""An S3 bucket as a store, over s3fs: at Amazon, or on any server that speaks the same language.

A key is claimed by a conditional put (`If-None-Match: *`), and what is large arrives as the parts of an upload that
shows as a whole at its end, or never. Endpoint, region and credentials are botocore's own: AWS_ENDPOINT_URL,
AWS_PROFILE and the rest of the environment, or the files below ~/.aws.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fsspec.asyn import sync
from s3fs import S3FileSystem

from shared_store.backend import PART_BYTES, Content, Entry, Paced
from shared_store.errors import NotExclusiveError, StoreError
from shared_store.s3_errors import TROUBLE, code_of, explained
from shared_store.transfer import cut, in_order

T = TypeVar("T")
Answer = dict[str, Any]
"""By the names of S3's API, what the server said: `Code` alone when it said no in a way that was expected."""

_ONE_PUT_BYTES = 2 * PART_BYTES  # above it, and in parts of it; S3 wants at least 5 MiB in each
_MOST_PARTS = 10_000
_UNDER_WAY_BYTES = 3 * _ONE_PUT_BYTES  # on their way up at once: what bounds the memory
_READ_AHEAD = 3  # parts asked for at once
_CALL_SECONDS, _SLOWEST_BYTES_PER_SECOND = 30.0, 30_000.0  # the longest that one call may take, with what it moves
_COPY_SECONDS = 3600.0
_UPLOAD = "?uploadId="  # no key has it
_SETTINGS = {
    "connect_timeout": 10,
    "max_pool_connections": 32,
    # One bad part must not cost a whole upload; patience with a server that is down is Retrying's.
    "retries": {"mode": "standard", "total_max_attempts": 3},
}


class S3Backend:
    """The keys below `prefix` in a bucket that exists already, at `s3://bucket/prefix`."""

    def __init__(self, url: str, silent_seconds: float = 30.0) -> None:
        """A connection on which nothing came for `silent_seconds` counts as lost."""
        self._bucket, _, self._prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        if not self._bucket:
            raise StoreError("no bucket is named", where=url, mend="give a URL like s3://bucket/prefix")
        self.url = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self._below = f"{self._prefix}/" if self._prefix else ""
        self._settings = {"read_timeout": silent_seconds, **_SETTINGS}
        self._lock = threading.Lock()
        self._files: S3FileSystem | None = None

    def put_if_absent(self, key: str, data: bytes) -> bool:
        assert data, f"{key}: of empty records S3 clients let several win; a record says something"
        expected = ("PreconditionFailed", "NotImplemented", "501")
        answer = self._call("put_object", expected, len(data), Key=self._below + key, Body=data, IfNoneMatch="*")
        if answer.get("Code") in expected[1:]:
            mend = "use a bucket that takes conditional puts (If-None-Match), or let the coordinator alone commit"
            raise NotExclusiveError("this S3 server cannot put if absent", where=self._where(key), mend=mend)
        return "Code" not in answer

    def publish(self, key: str, content: Content) -> None:
        size = content.size
        if size <= _ONE_PUT_BYTES:
            body = next(cut(content, size + 1), io.BytesIO())
            self._check_size(key, size, body.getbuffer().nbytes)
            self._call("put_object", (), size, Key=self._below + key, Body=body)
            return
        named: Answer = {"Key": self._below + key}
        checked: Answer = {"ChecksumAlgorithm": "CRC32"} if self._ask(key, _sends_checksums, _CALL_SECONDS) else {}
        named["UploadId"] = self._call("create_multipart_upload", **named, **checked)["UploadId"]
        try:
            parts = self._send(key, content, size, named)
            self._call("complete_multipart_upload", (), size, MultipartUpload={"Parts": parts}, **named)
        except BaseException:
            with contextlib.suppress(StoreError):  # what ended the upload is the story; `leftovers` finds what stays
                self._call("abort_multipart_upload", ("NoSuchUpload",), **named)
            raise

    def parts(self, key: str, start: int = 0) -> Iterator[bytes] | None:
        answer = self._range(key, start, PART_BYTES)
        if "Code" in answer:
            return None if answer["Code"] == "NoSuchKey" else iter(())
        return self._read_on(key, start, answer)

    def size(self, key: str) -> int | None:
        answer = self._range(key, 0, 1)  # unlike HEAD's, this answer says what is wrong
        return {"NoSuchKey": None, "InvalidRange": 0}[answer["Code"]] if "Code" in answer else _whole_bytes(answer)

    def move(self, key: str, to: str) -> None:
        if self.size(key) is not None:
            source, target = (f"{self._bucket}/{self._below}{name}" for name in (key, to))
            with contextlib.suppress(FileNotFoundError):  # gone since
                self._ask(key, lambda files: files._cp_file(source, target), _COPY_SECONDS)
            self.delete(key)

    def delete(self, key: str) -> None:
        name, _, upload = key.partition(_UPLOAD)
        if upload:
            self._call("abort_multipart_upload", ("NoSuchUpload",), Key=self._below + name, UploadId=upload)
        else:
            self._call("delete_object", ("NoSuchKey",), Key=self._below + key)

    def list(self, prefix: str) -> list[Entry]:
        found = []
        for page in self._pages("list_objects_v2", ("ContinuationToken",), Prefix=self._below + prefix):
            for one in page.get("Contents", ()):
                key = one["Key"].removeprefix(self._below)
                if not key.endswith("/"):  # consoles leave such objects to show a folder
                    found.append(Entry(key, one["Size"], one["LastModified"].timestamp()))
        return sorted(found, key=lambda entry: entry.key)

    def leftovers(self) -> Sequence[Entry]:
        found = []
        markers = ("KeyMarker", "UploadIdMarker")
        for page in self._pages("list_multipart_uploads", markers, Prefix=self._below):
            for one in page.get("Uploads", ()):
                key = one["Key"].removeprefix(self._below) + _UPLOAD + one["UploadId"]
                found.append(Entry(key, self._sent_bytes(one), one["Initiated"].timestamp()))
        return sorted(found, key=lambda entry: entry.key)

    def local_path(self, key: str) -> Path | None:
        return None

    def close(self) -> None:
        with self._lock:
            self._files = None  # calls under way end on it; its connections close once they are idle

    def _send(self, key: str, content: Content, size: int, named: Answer) -> Sequence[Answer]:
        """Upload all parts, several at once unless they are to leave room on the link; what completes the upload."""
        part_bytes = part_bytes_of(size)
        at_once = 1 if isinstance(content, Paced) else max(1, _UNDER_WAY_BYTES // part_bytes)
        sent = list[int]()

        def uploads() -> Iterator[Callable[[], Answer]]:
            for number, body in enumerate(cut(content, part_bytes), 1):
                sent.append(body.getbuffer().nbytes)
                yield partial(self._call, "upload_part", (), sent[-1], Body=body, PartNumber=number, **named)

        answers = in_order(uploads(), at_once)
        parts = [_completing(number, answer) for number, answer in enumerate(answers, 1)]
        self._check_size(key, size, sum(sent))
        return parts

    def _check_size(self, key: str, size: int, sent: int) -> None:
        if sent != size:
            mend = "let nothing write to the file while it is sent, and give the same command again"
            raise StoreError(f"a file of {size} bytes had {sent} when it was sent", where=self._where(key), mend=mend)

    def _read_on(self, key: str, start: int, first: Answer) -> Iterator[bytes]:
        """The bytes of `first` and the parts after it, of the same object and no other."""
        yield first["Body"]
        places = range(start + PART_BYTES, _whole_bytes(first), PART_BYTES)
        asked = (partial(self._range, key, place, PART_BYTES, IfMatch=first["ETag"]) for place in places)
        for answer in in_order(asked, _READ_AHEAD):
            if "Code" in answer:
                mend = "give the same command again"
                raise StoreError("a file was replaced or removed while it was read", where=self._where(key), mend=mend)
            yield answer["Body"]

    def _range(self, key: str, start: int, count: int, **conditions: str) -> Answer:
        expected = ("NoSuchKey", "InvalidRange", *(("PreconditionFailed",) if conditions else ()))
        place = {"Key": self._below + key, "Range": f"bytes={start}-{start + count - 1}"}
        return self._call("get_object", expected, count, **place, **conditions)

    def _sent_bytes(self, upload: Answer) -> int:
        named = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
        pages = self._pages("list_parts", ("PartNumberMarker",), ("NoSuchUpload",), **named)
        return sum(part["Size"] for page in pages for part in page.get("Parts", ()))

    def _pages(
        self, method: str, markers: Sequence[str], expected: Sequence[str] = (), **arguments: Any
    ) -> Iterator[Answer]:
        while True:
            page = self._call(method, expected, **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments |= {marker: page[f"Next{marker}"] for marker in markers if f"Next{marker}" in page}

    def _call(self, method: str, expected: Sequence[str] = (), moved_bytes: int = 0, **arguments: Any) -> Answer:
        """Ask the server; when it says no with a code of `expected`, that is an answer too."""

        async def ask(files: S3FileSystem) -> Answer:
            answer: Answer = await files._call_s3(method, Bucket=self._bucket, **arguments)
            if "Body" in answer:
                async with answer["Body"] as body:
                    answer["Body"] = await body.read()
            return answer

        seconds = _CALL_SECONDS + moved_bytes / _SLOWEST_BYTES_PER_SECOND
        key = str(arguments.get("Key", "")).removeprefix(self._below)
        answer: Answer = self._ask(key, ask, seconds, expected)
        return answer

    def _ask(
        self, key: str, ask: Callable[[S3FileSystem], Awaitable[T]], seconds: float, expected: Sequence[str] = ()
    ) -> Any:
        """What `ask` brings from the server within so many seconds; errors in the store's words."""
        try:
            files = self._connected()
            return sync(files.loop, ask, files, timeout=seconds)
        except TROUBLE as error:
            if code_of(error) in expected:
                return {"Code": code_of(error)}
            raise explained(error, self._where(key)) from error

    def _connected(self) -> S3FileSystem:
        with self._lock:
            if self._files is None:
                files = S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=self._settings)
                files.retries = 1  # of s3fs's own, on top of botocore's
                try:
                    files.connect(timeout=_CALL_SECONDS)
                except ValueError as error:
                    mend = "correct AWS_ENDPOINT_URL: a URL like https://host:port"
                    raise StoreError(f"S3 cannot be reached so ({error})", where=self.url, mend=mend) from error
                self._files = files
            return self._files

    def _where(self, key: str) -> str:
        return f"{self.url}/{key}"


async def _sends_checksums(files: S3FileSystem) -> bool:
    """Whether botocore adds a CRC32 to each part, as it does by itself: an upload must say so from its beginning."""
    return bool(files.s3.meta.config.request_checksum_calculation == "when_supported")


def part_bytes_of(size: int) -> int:
    """How large the parts of an upload of `size` bytes are, so that there are not too many."""
    return max(_ONE_PUT_BYTES, math.ceil(size / _MOST_PARTS))


def _whole_bytes(answer: Answer) -> int:
    """The size of an object of which a range was read."""
    return int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else int(answer["ContentLength"])


def _completing(number: int, answer: Answer) -> Answer:
    """How the end of an upload names a part: with the checksums that the server keeps."""
    kept = {name: value for name, value in answer.items() if name == "ETag" or name.startswith("Checksum")}
    return {"PartNumber": number, **kept}
