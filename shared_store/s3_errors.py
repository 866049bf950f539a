"""What an S3 server's errors, and those on the way to it, mean for whoever uses the store."""

from __future__ import annotations

import aiohttp
import botocore.exceptions as botocore

from shared_store.errors import StoreDownError, StoreError, StoreFullError, StoreRefusedError

TROUBLE = (OSError, botocore.BotoCoreError, botocore.ClientError, aiohttp.ClientError)
"""All that a call can end in; s3fs turns what the server says into kinds of OSError."""

_FULL = {"QuotaExceeded", "StorageFull", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}
_PASSING = {"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "BadDigest"}
_PASSING |= {"XAmzContentSHA256Mismatch", "IncompleteBody", "NoSuchUpload"}  # an upload that is gone is sent again
_REFUSED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestExpired", "InvalidAccessKeyId"}
_NO_CREDENTIALS = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.TokenRetrievalError,
    botocore.NoAuthTokenError,
    botocore.SSOError,
    botocore.MetadataRetrievalError,
    botocore.ProfileNotFound,
    botocore.ConfigParseError,  # a file that is being written
)
_ON_THE_WAY = (
    botocore.HTTPClientError,
    botocore.ConnectionError,
    botocore.IncompleteReadError,
    botocore.ChecksumError,
    botocore.FlexibleChecksumError,
    aiohttp.ClientError,
    OSError,
)

_WAIT = "check the network and AWS_ENDPOINT_URL; what stands is safe, give the same command again"
_CREDENTIALS = (
    "give credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials with AWS_PROFILE (they are "
    "read anew at every try); they must allow what docs/operating.md lists"
)
_BUCKET = "make the bucket (foldfleet never makes one), or correct its name, AWS_ENDPOINT_URL or AWS_REGION"
_OLD_SERVER = (
    "check AWS_ENDPOINT_URL and AWS_REGION; with a server older than 2025 set AWS_REQUEST_CHECKSUM_CALCULATION and "
    "AWS_RESPONSE_CHECKSUM_VALIDATION to when_required"
)


def code_of(error: BaseException) -> str:
    """The server's word for an error (`NoSuchKey`); empty where no server spoke."""
    said = _said(error)
    return "" if said is None else str(said.response["Error"].get("Code", ""))


def explained(error: BaseException, where: str) -> StoreError:
    """An error of TROUBLE in the store's three kinds, or as one that a person has to mend."""
    said = _said(error)
    if said is not None:
        return _of_server(said, where)
    if isinstance(error, _NO_CREDENTIALS):
        return StoreRefusedError(f"there are no credentials for S3 ({error})", where=where, mend=_CREDENTIALS)
    if isinstance(error, botocore.SSLError):
        mend = (
            "set AWS_CA_BUNDLE to the certificates that this server's is signed with, or correct this machine's clock"
        )
        return StoreError(f"the S3 server's certificate is not accepted ({error})", where=where, mend=mend)
    if isinstance(error, _ON_THE_WAY):
        return StoreDownError(f"the S3 server does not answer ({_words(error)})", where=where, mend=_WAIT)
    return StoreError(f"the settings for S3 cannot be used ({error})", where=where, mend=_OLD_SERVER)


def _said(error: BaseException) -> botocore.ClientError | None:
    """What the server answered, below what s3fs made of it."""
    for one in (error, error.__cause__):
        if isinstance(one, botocore.ClientError):
            return one
    return None


def _of_server(said: botocore.ClientError, where: str) -> StoreError:
    code, status = code_of(said), int(said.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    words = f"{code}: {said.response['Error'].get('Message', '')}".rstrip(": ")
    if code in _FULL or status == 507:
        mend = "free some space there, or have the quota raised, then give the same command again"
        return StoreFullError(f"the S3 bucket is full ({words})", where=where, mend=mend)
    if code == "EntityTooLarge":
        mend = "raise the limit of this server, use another, or send something smaller"
        return StoreError(f"the S3 server does not take it ({words})", where=where, mend=mend)
    if code == "NoSuchBucket":
        return StoreError("there is no such S3 bucket", where=where, mend=_BUCKET)
    if code == "RequestTimeTooSkewed":
        mend = "set this machine's clock: S3 refuses requests that are more than 15 minutes off"
        return StoreRefusedError(f"S3 refuses this machine's clock ({words})", where=where, mend=mend)
    if code in _PASSING or status in (408, 409, 429) or (status >= 500 and status != 501):
        return StoreDownError(f"the S3 server cannot do it now ({words})", where=where, mend=_WAIT)
    if code in _REFUSED or status in (401, 403):
        return StoreRefusedError(f"the S3 server refused us ({words})", where=where, mend=_CREDENTIALS)
    return StoreError(f"the S3 server does not do what was asked ({words})", where=where, mend=_OLD_SERVER)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
