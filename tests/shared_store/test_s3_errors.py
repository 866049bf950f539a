from __future__ import annotations

import aiohttp
import botocore.exceptions as botocore
import pytest

from shared_store.errors import StoreDownError, StoreError, StoreFullError, StoreRefusedError
from shared_store.s3_errors import TROUBLE, code_of, explained

WHERE = "s3://bucket/prefix/commits/1.json"


def said(code: str, status: int) -> OSError:
    """As s3fs raises it: an OSError of its own above what the server said."""
    answer = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError("made by s3fs")
    error.__cause__ = botocore.ClientError(answer, "PutObject")
    return error


@pytest.mark.parametrize(
    ("code", "status", "kind", "mend"),
    [
        ("SlowDown", 503, StoreDownError, "again"),
        ("InternalError", 500, StoreDownError, "again"),
        ("502", 502, StoreDownError, "again"),
        ("TooManyRequests", 429, StoreDownError, "again"),
        ("RequestTimeout", 400, StoreDownError, "again"),
        ("ConditionalRequestConflict", 409, StoreDownError, "again"),
        ("BadDigest", 400, StoreDownError, "again"),
        ("NoSuchUpload", 404, StoreDownError, "again"),
        ("AccessDenied", 403, StoreRefusedError, "credentials"),
        ("InvalidAccessKeyId", 403, StoreRefusedError, "credentials"),
        ("SignatureDoesNotMatch", 403, StoreRefusedError, "credentials"),
        ("ExpiredToken", 400, StoreRefusedError, "credentials"),
        ("Unauthorized", 401, StoreRefusedError, "credentials"),
        ("RequestTimeTooSkewed", 403, StoreRefusedError, "clock"),
        ("QuotaExceeded", 403, StoreFullError, "space"),
        ("XMinioStorageFull", 507, StoreFullError, "space"),
        ("InsufficientStorage", 507, StoreFullError, "space"),
        ("NoSuchBucket", 404, StoreError, "make the bucket"),
        ("NotImplemented", 501, StoreError, "CHECKSUM"),
        ("InvalidArgument", 400, StoreError, "CHECKSUM"),
        ("PermanentRedirect", 301, StoreError, "AWS_REGION"),
        ("EntityTooLarge", 400, StoreError, "smaller"),
    ],
)
def test_what_a_server_says(code: str, status: int, kind: type[StoreError], mend: str) -> None:
    error = explained(said(code, status), WHERE)
    assert type(error) is kind
    assert mend in error.mend
    assert error.where == WHERE
    assert code == code_of(said(code, status))
    assert code in error.what or code == "NoSuchBucket"


@pytest.mark.parametrize(
    "error",
    [
        botocore.EndpointConnectionError(endpoint_url="http://here", error="refused"),
        botocore.ConnectTimeoutError(endpoint_url="http://here", error="late"),
        botocore.ReadTimeoutError(endpoint_url="http://here", error="late"),
        botocore.ConnectionClosedError(endpoint_url="http://here", error="closed"),
        botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        aiohttp.ClientPayloadError("cut short"),
        TimeoutError(),
        ConnectionResetError("reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_trouble_on_the_way_passes(error: Exception) -> None:
    assert isinstance(error, TROUBLE)
    assert type(explained(error, WHERE)) is StoreDownError


@pytest.mark.parametrize(
    "error",
    [
        botocore.NoCredentialsError(),
        botocore.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        botocore.CredentialRetrievalError(provider="process", error_msg="failed"),
        botocore.UnauthorizedSSOTokenError(),
        botocore.ProfileNotFound(profile="nobody"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_missing_credentials_are_asked_for(error: Exception) -> None:
    assert type(explained(error, WHERE)) is StoreRefusedError
    assert "AWS_ACCESS_KEY_ID" in explained(error, WHERE).mend


def test_a_certificate_that_is_not_accepted_is_for_a_person() -> None:
    error = botocore.SSLError(endpoint_url="https://here", error="self-signed")
    assert type(explained(error, WHERE)) is StoreError
    assert "AWS_CA_BUNDLE" in explained(error, WHERE).mend


def test_settings_that_cannot_be_used_are_for_a_person() -> None:
    error = botocore.InvalidRegionError(region_name="the moon")
    assert type(explained(error, WHERE)) is StoreError
    assert "AWS_REGION" in explained(error, WHERE).mend
