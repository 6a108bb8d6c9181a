"""Files in a folder: by what is in them, for the owner alone, whole or not there."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.kernel.errors import DomainError
from services.payment.adapters.files import Bucket, FolderFiles, S3Files, files
from services.payment.settings import Settings
from services.platform.settings import SettingsError

BILL = "支付宝\r\n".encode("gbk") * 1_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where they are kept; not made yet."""
    return tmp_path / "data" / "files"


def there(folder: Path) -> list[Path]:
    """Every file, hidden ones too."""
    return [path for path in folder.rglob("*") if path.is_file()]


def test_file_is_kept_as_it_came_by_its_hash(folder: Path) -> None:
    """Its name is the SHA-256 of its bytes; nobody else may read it; the same again is the same."""
    kept = FolderFiles(folder)
    name = kept.put(BILL)
    assert name == hashlib.sha256(BILL).hexdigest() == kept.put(BILL)
    assert kept.get(name) == BILL
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in there(folder)] == [(name, 0o600)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / name[:2])} == {0o700}
    assert (kept.get("0" * 64), FolderFiles(folder).get(name)) == (None, BILL)
    assert kept.get(kept.put(b"")) == b""


def test_file_that_many_keep_at_once(folder: Path) -> None:
    """Twenty writers of one file: one file, nothing beside it."""
    with ThreadPoolExecutor(20) as pool:
        names = set(pool.map(lambda _: FolderFiles(folder).put(BILL), range(20)))
    assert [path.name for path in there(folder)] == list(names)


def test_file_that_was_damaged(folder: Path) -> None:
    """It is not handed out as what it was; put again it is whole."""
    kept = FolderFiles(folder)
    name = kept.put(BILL)
    [path] = there(folder)
    path.write_bytes(BILL[:-1])
    with pytest.raises(DomainError) as caught:
        kept.get(name)
    assert caught.value.reason == "UNAVAILABLE"
    assert kept.get(kept.put(BILL)) == BILL


def test_file_that_cannot_be_kept(tmp_path: Path) -> None:
    """A place that is no folder is UNAVAILABLE, and leaves nothing behind."""
    (tmp_path / "files").write_text("in the way")
    for deed in (
        lambda: FolderFiles(tmp_path / "files").put(BILL),
        lambda: FolderFiles(tmp_path / "files").get("0" * 64),
    ):
        with pytest.raises(DomainError) as caught:
            deed()
        assert caught.value.reason == "UNAVAILABLE"
    assert os.listdir(tmp_path) == ["files"]  # noqa: PTH208 - hidden ones too


def test_place_is_a_folder_or_a_bucket(folder: Path) -> None:
    """A path, DIR/files without one, or a bucket, for which the key must be told."""
    bucket = Bucket("http://127.0.0.1:9", key_id="k", secret="s")
    assert isinstance(files("", folder, bucket), FolderFiles)
    assert files(str(folder), folder / "other", bucket).put(BILL) == files("", folder, bucket).put(BILL)
    assert len(there(folder)) == 1
    assert isinstance(files("s3://bills/2027", folder, bucket), S3Files)
    for place, wrong in (
        ("s3://", bucket),
        ("s3://bills", Bucket()),
        ("s3://bills", Bucket("http://s3.example", key_id="k", secret="s")),
    ):
        with pytest.raises(ValueError, match=r"."):
            files(place, folder, wrong)
    assert "secret" not in repr(Bucket(secret="secret"))


def test_settings_of_half_a_bucket(tmp_path: Path) -> None:
    """What is missing of a bucket is said at the start, all at once, and the key is not printed."""
    with pytest.raises(SettingsError) as caught:
        Settings(data=tmp_path, listen="", mesh="", files="s3:///x", s3_key_id="k")
    assert len(caught.value.faults) == 2
    assert "hidden" not in repr(Settings(data=tmp_path, listen="", mesh="", s3_secret="hidden"))
