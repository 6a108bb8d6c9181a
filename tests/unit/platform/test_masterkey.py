"""The file that seals what a room's database keeps secret."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from services.platform.masterkey import MasterKey, MasterKeyUnusable


def test_what_is_sealed_opens_only_as_what_it_is_about(tmp_path: Path) -> None:
    """Another row, another room's key and another folder's do not open it; the plain text is not in it."""
    key = MasterKey(tmp_path, "order")
    sealed = key.seal(b"a secret of some length", "row 1")
    assert b"secret" not in sealed
    assert MasterKey(tmp_path, "order").unseal(sealed, "row 1") == b"a secret of some length"
    (tmp_path / "user.key").write_bytes((tmp_path / "order.key").read_bytes())
    (tmp_path / "user.key").chmod(0o600)
    for other, about in (
        (key, "row 2"),
        (MasterKey(tmp_path, "user"), "row 1"),
        (MasterKey(tmp_path / "other", "order"), "row 1"),
    ):
        with pytest.raises(MasterKeyUnusable, match="put that one back"):
            other.unseal(sealed, about)


def test_master_key_is_its_owners_alone(tmp_path: Path) -> None:
    """The file is made with mode 0600; one that others can read, or of another size, is refused with what to do."""
    path = tmp_path / "keys" / "order.key"
    MasterKey(path.parent, "order").fingerprint(b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["order.key"]
    path.chmod(0o644)
    with pytest.raises(MasterKeyUnusable, match="chmod 600"):
        MasterKey(path.parent, "order").fingerprint(b"")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(MasterKeyUnusable, match="5 bytes"):
        MasterKey(path.parent, "order").fingerprint(b"")


def test_master_key_is_one_when_many_make_it_at_once(tmp_path: Path) -> None:
    """Whoever comes second uses the first one's."""
    folder, found = tmp_path / "keys", []
    begin = threading.Barrier(8)

    def make() -> None:
        begin.wait()
        found.append(MasterKey(folder, "order").fingerprint(b""))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
