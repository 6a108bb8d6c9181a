"""Files in a bucket behind S3's protocol: Amazon's, MinIO, Ceph and their like. An object is whole, or it is not there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import S3Store

from services.kernel.errors import DomainError
from services.payment.adapters.exchange import provider_url
from services.payment.adapters.files.folder import checked
from services.platform import telemetry

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_CLIENT: ClientConfig = {"connect_timeout": "2s", "timeout": "10s", "user_agent": "paymesh"}
_RETRY: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=8)}


@dataclass(frozen=True, slots=True)
class Bucket:
    """How a bucket is reached. ``endpoint`` empty: Amazon's own of the region."""

    endpoint: str = ""
    region: str = "us-east-1"
    key_id: str = ""
    secret: str = field(default="", repr=False)


class S3Files:
    """A bucket, or what is under a prefix of it."""

    def __init__(self, place: str, bucket: Bucket) -> None:
        """Keep files in ``place`` (bucket/prefix). Raises ValueError where it or the endpoint is none."""
        name, _, prefix = place.partition("/")
        if not name or not bucket.key_id or not bucket.secret:
            raise ValueError("s3://bucket/prefix wants a bucket, PAYMESH_S3_KEY_ID and PAYMESH_S3_SECRET")
        url = str(provider_url(bucket.endpoint)) if bucket.endpoint else None
        plain = url is not None and url.startswith("http://")  # to this machine alone
        self._store = S3Store(
            name,
            prefix=prefix.strip("/") or None,
            endpoint=url,
            region=bucket.region,
            access_key_id=bucket.key_id,
            secret_access_key=bucket.secret,
            virtual_hosted_style_request=url is None,
            client_options={**_CLIENT, "allow_http": plain},
            retry_config=_RETRY,
        )

    def put(self, content: bytes) -> str:
        """Keep a file for good and return its SHA-256; the same file again is the same. Raises UNAVAILABLE."""
        name = hashlib.sha256(content).hexdigest()
        try:
            if not self._has(name, len(content)):
                self._store.put(_path(name), content, use_multipart=False)
        except (BaseError, OSError) as error:
            raise _unavailable("file.not_kept", name, error) from None
        return name

    def get(self, sha256: str) -> bytes | None:
        """Return a file exactly as it was put; None: there is none. Raises UNAVAILABLE, also for one that was damaged."""
        try:
            content = bytes(self._store.get(_path(sha256)).bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise _unavailable("file.not_read", sha256, error) from None
        return checked(content, sha256)

    def _has(self, name: str, size: int) -> bool:
        try:
            return self._store.head(_path(name))["size"] == size
        except FileNotFoundError:
            return False


def _path(name: str) -> str:
    return f"{name[:2]}/{name}"


def _unavailable(event: str, sha256: str, error: Exception) -> DomainError:
    """The error's first line says what failed and where; the rest is the inside of a library."""
    telemetry.log.error(event, sha256=sha256, error=str(error).partition("\n")[0][:300])
    return DomainError("UNAVAILABLE")
