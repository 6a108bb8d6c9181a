"""A mesh's folder is for its owner alone, and for one mesh at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, default_folder, write_json


def test_folder_when_made(tmp_path: Path) -> None:
    """Every folder is closed to others, and what a killed mesh left in run/ is gone."""
    folder = Folder(tmp_path / "mesh")
    folder.run.mkdir(parents=True)
    (folder.run / "payment-1.sock").touch()
    folder.make()
    assert list(folder.run.iterdir()) == []
    closed = [folder.path, folder.pki, folder.logs, folder.envoy, folder.vault_keys, folder.files]
    assert [path.stat().st_mode & 0o077 for path in closed] == [0] * len(closed)


def test_lock_when_another_holds_it(tmp_path: Path) -> None:
    """The second is told who has the folder and how to get it; afterwards it may have it."""
    first, second = Folder(tmp_path), Folder(tmp_path)
    first.lock()
    assert second.holder() == os.getpid()
    with pytest.raises(CommandError, match=rf"pid {os.getpid()}.*paymesh down --data") as refused:
        second.lock()
    assert refused.value.code == Exit.BAD_INPUT
    first.unlock()
    assert second.holder() is None
    second.lock()
    second.unlock()


def test_admin_when_asked_twice(tmp_path: Path) -> None:
    """The operator's password is made once, and readable by the owner alone."""
    folder = Folder(tmp_path)
    made = folder.admin()
    assert folder.admin() == made
    assert len(made["password"]) >= 20
    assert (tmp_path / "admin.json").stat().st_mode & 0o777 == 0o600


def test_record_when_nothing_runs(tmp_path: Path) -> None:
    """Without a mesh there is nothing to read, whatever file is left; while one starts it is not there yet."""
    folder = Folder(tmp_path)
    write_json(folder.record, {"pid": 1})
    with pytest.raises(CommandError) as refused:
        folder.read_record()
    assert refused.value.code == Exit.NOT_FOUND
    folder.lock()
    assert Folder(tmp_path).read_record() == {"pid": 1}
    folder.record.unlink()
    with pytest.raises(CommandError) as starting:
        Folder(tmp_path).read_record()
    assert starting.value.code == Exit.UNAVAILABLE
    folder.unlock()


def test_write_json_when_read_meanwhile(tmp_path: Path) -> None:
    """A file is replaced as a whole, is private, and no draft is left."""
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert path.read_text() == '{\n "a": 2\n}\n'
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_default_folder_when_xdg_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state folder of the user is where a mesh lives."""
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_folder() == Path("/var/state/paymesh")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_folder() == Path.home() / ".local/state/paymesh"
