"""Where files are kept: a folder, or whatever speaks S3's protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.payment.adapters.files.folder import FolderFiles
from services.payment.adapters.files.s3 import Bucket, S3Files

if TYPE_CHECKING:
    from pathlib import Path

    from services.payment.ports.bills import Files

_S3 = "s3://"


def files(place: str, folder: Path, bucket: Bucket) -> Files:
    """Keep files in ``place``: s3://bucket/prefix or a path, ``folder`` where it is empty. Raises ValueError."""
    return S3Files(place.removeprefix(_S3), bucket) if place.startswith(_S3) else FolderFiles(place or folder)


__all__ = ["Bucket", "FolderFiles", "S3Files", "files"]
