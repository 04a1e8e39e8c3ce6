"""What an object store's errors mean to a person: which bucket, which keys, which endpoint, and what to change."""

from __future__ import annotations

import os
import socket
from urllib.parse import parse_qs, urlsplit

import pyarrow.fs as pafs

#: Where the store of s3:// addresses is set, the first that is there; none: AWS itself.
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")  # behind one of them, names of servers mean nothing here
STORES = ("s3", "gs")
KNOCK_S = 5.0  # an endpoint that takes no connection within this time is not there; pyarrow itself waits minutes
REFUSALS = (
    "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE", "EXPIRED_TOKEN",
    "UNRECOGNIZED_CLIENT", "INVALID_CLIENT_TOKEN_ID", "HTTP status 403", "HTTP status 401",
)  # fmt: skip
UNHEARD = ("NETWORK_CONNECTION", "curlCode", "REQUEST_TIMEOUT")
ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "HTTP status 301")


def bucket_of(address: str) -> str:
    return urlsplit(address).netloc.rpartition("@")[2]


def endpoint_of(address: str) -> str | None:
    """The server that an s3:// address is asked of, None for AWS itself and other stores."""
    parts = urlsplit(address)
    if parts.scheme != "s3":
        return None
    asked = parse_qs(parts.query)
    if "endpoint_override" in asked:
        host = asked["endpoint_override"][0]
        return host if "://" in host else f"{asked.get('scheme', ['https'])[0]}://{host}"
    return next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)


def unreachable(address: str) -> str | None:
    """Why nobody answers at an address' endpoint, as a sentence; None where somebody does, or where it is not known."""
    endpoint = endpoint_of(address)
    if endpoint is None or any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES):
        return None
    why = None if endpoint in _answered else _knock(endpoint)
    return None if why is None else f"no store answers at {endpoint} ({why}): {_ENDPOINT_FIX}"


_ENDPOINT_FIX = "check AWS_ENDPOINT_URL (or the address' endpoint_override), and that the store is up"


_answered: set[str] = set()  # endpoints that have taken a connection: from then on they are waited for


def _knock(endpoint: str) -> str | None:
    parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), timeout=KNOCK_S).close()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    _answered.add(endpoint)
    return None


def told(said: str, address: str) -> str | None:
    """What a store's own error about an address means, without a full stop; None where it is of no known kind."""
    bucket, at = bucket_of(address), f" at {where}" if (where := endpoint_of(address)) else ""
    code = next((word for word in said.replace("'", " ").split() if word.isupper() and "_" in word), "it says no")
    if "NO_SUCH_BUCKET" in said or "NoSuchBucket" in said:
        return (
            f"there is no bucket '{bucket}'{at}: check its name and AWS_ENDPOINT_URL, or make it "
            f"(`aws s3 mb s3://{bucket}`)"
        )
    if any(word in said for word in REFUSALS):
        return (
            f"the store{at} does not let us into the bucket '{bucket}' ({code}): give AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) of somebody who may list, read and, for an output, write it"
        )
    if any(word in said for word in ELSEWHERE):
        return f"the bucket '{bucket}' lies in another region: name it in AWS_REGION, or as s3://...?region=NAME"
    if any(word in said for word in UNHEARD):
        return f"no store answers{at or ' of AWS'} ({code}): {_ENDPOINT_FIX}"
    return None


def why_nothing(fs: pafs.FileSystem, address: str) -> str | None:
    """Why nothing was found at an address of an object store: its bucket, or what it lacks; None for other places."""
    if urlsplit(address).scheme not in STORES:
        return None
    prefix = urlsplit(address).path.strip("/")
    nothing = f"the bucket '{bucket_of(address)}' is there, and holds nothing below '{prefix}/'"
    return why_no_bucket(fs, address) or nothing


def why_no_bucket(fs: pafs.FileSystem, address: str) -> str | None:
    """Why an address' bucket cannot be used; None where it is there, or may be."""
    bucket = bucket_of(address)
    if not bucket or urlsplit(address).scheme not in STORES:
        return None
    try:
        found = fs.get_file_info(bucket)
    except OSError as error:  # who may not list a bucket may still read and write in it
        return told(str(error), address)
    return told("NO_SUCH_BUCKET", address) if found.type == pafs.FileType.NotFound else None
