"""The database engines that money is kept in: throw-away servers on unix sockets, one of each for a test run.

A server that this machine lacks skips the test by the server's name; where CI is set it fails it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from pwd import getpwnam
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.cli.supervisor.tether import tether
from services.platform import migrations

SQLITE, MARIADB, POSTGRESQL = ENGINES = ("sqlite", "mariadb", "postgresql")

_PATHS = (*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), "/usr/sbin", "/usr/local/sbin")
"""Where Debian keeps servers, beside PATH."""
_START_S = 30


class Engines:
    """Gives databases; each server starts when the first one is asked of it, and dies with this process at the latest."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._stack, self._numbers, self._servers = ExitStack(), count(1), dict[str, sa.URL]()
        self._kept: dict[tuple[str, str], _Kept] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="pm-"))
        self._stack.callback(shutil.rmtree, self.folder)
        environ = {"PATH": os.environ.get("PATH", os.defpath), "TMPDIR": str(self.folder), "LC_ALL": "C"}
        self._apart: dict[str, Any] = {"cwd": self.folder, "env": environ}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root, and neither server has a reason to
            shutil.chown(self.folder, nobody := getpwnam("nobody").pw_uid)
            self._apart |= {"user": nobody, "group": getpwnam("nobody").pw_gid, "extra_groups": ()}

    def empty(self, engine: str) -> str:
        """Return the URL of a new database without tables."""
        name = f"t{next(self._numbers)}"
        if engine == SQLITE:
            return f"sqlite:///{self.folder / name}.db"
        if engine not in self._servers:
            self._servers[engine] = {MARIADB: self._mariadb, POSTGRESQL: self._postgresql}[engine]()
        server = self._servers[engine]
        execute(server, f"CREATE DATABASE {name}")
        return server.set(database=name).render_as_string(hide_password=False)

    def migrated(self, engine: str, room: str) -> str:
        """Return the URL of a database with the newest schema of ``room`` and no rows but those that migrations write.

        To make one takes a while: a file is copied, and a server's one of each room is emptied when asked for again.
        """
        known = self._kept.get((engine, room))
        if known is None:
            known = self._kept[engine, room] = _Kept(self.empty(engine), room)
            self._stack.callback(known.engine.dispose)
        elif engine != SQLITE:
            known.empty()
        if engine != SQLITE:
            return known.url
        url = self.empty(engine)
        shutil.copyfile(*(str(sa.make_url(each).database) for each in (known.url, url)))
        return url

    def stop(self) -> None:
        """End the servers and remove what they kept."""
        self._stack.close()

    def _mariadb(self) -> sa.URL:
        """Start MariaDB as durable as production has to be, and with the smallest files."""
        server, data, socket = program("mariadbd"), self.folder / "mariadb", self.folder / "mariadb.sock"
        self._run(program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db",
                  "--auth-root-authentication-method=normal")  # fmt: skip
        durable = ("--innodb-flush-log-at-trx-commit=1", "--log-bin=binlog", "--sync-binlog=1")
        small = ("--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M", "--performance-schema=OFF")
        self._start(server, "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking", *durable,
                    "--innodb-snapshot-isolation=ON", *small, end=signal.SIGKILL)  # fmt: skip
        url = sa.URL.create("mysql+pymysql", "root", host="localhost", query={"unix_socket": str(socket)})
        return _answering(url)

    def _postgresql(self) -> sa.URL:
        """Start PostgreSQL, which is durable unless told otherwise."""
        server, data = program("postgres"), self.folder / "postgresql"
        self._run(program("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale",
                  "--no-sync")  # fmt: skip
        self._start(server, "-D", str(data), "-k", str(self.folder), "-c", "listen_addresses=", end=signal.SIGQUIT)
        url = sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": str(self.folder)})
        return _answering(url)

    def _run(self, *command: str) -> None:
        """Run a command to its end."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                              **self._apart)  # fmt: skip
        assert not done.returncode, f"{command[0]} ended with {done.returncode}:\n{done.stdout}"

    def _start(self, *command: str, end: int) -> None:
        """Start a server that ``end`` ends at once; its last words stand in a file beside its data."""
        with (self.folder / f"{Path(command[0]).name}.log").open("w") as log:
            running = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                preexec_fn=tether(),  # noqa: PLW1509 - one system call, no lock
                **self._apart,
            )
        self._stack.callback(_end, running, end)


class _Kept:
    """A migrated database that is used again and again."""

    def __init__(self, url: str, room: str) -> None:
        """Migrate it, and remember the rows that stand in it."""
        migrations.upgrade(room, url)
        self.url, self.engine, self._schema = url, sa.create_engine(url), sa.MetaData()
        with self.engine.connect() as connection:
            self._schema.reflect(connection)
            self._first = {
                table: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
                for table in self._schema.sorted_tables
            }

    def empty(self) -> None:
        """Bring it back to these rows."""
        with self.engine.begin() as connection:
            for table in reversed(self._schema.sorted_tables):
                connection.execute(sa.delete(table))
            for table, rows in self._first.items():
                if rows:
                    connection.execute(sa.insert(table), rows)


def differences(connection: sa.Connection, metadata: sa.MetaData) -> list[Any]:
    """Say what a database has otherwise than ``metadata`` declares it: tables, columns and their types, indexes, keys."""

    def differs(_context: object, _found: object, _declared: object, found: object, declared: object) -> bool | None:
        # MariaDB has a word of its own for a binary of each length.
        return False if isinstance(found, sa.types._Binary) and isinstance(declared, sa.LargeBinary) else None

    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": differs}), metadata))


def _end(running: subprocess.Popen[bytes], with_signal: int) -> None:
    running.send_signal(with_signal)
    running.wait(10)


def program(name: str) -> str:
    """Find a server's program; without it the test is skipped by name, or fails where CI is set."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_PATHS)))
    if found is not None:
        return found
    missing = f"{name} is not on this machine"
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def _answering(url: sa.URL) -> sa.URL:
    """Return ``url`` once its server answers."""
    until = time.monotonic() + _START_S
    while True:
        try:
            execute(url, "SELECT 1")
        except sa.exc.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return url


def execute(url: sa.URL, *statements: str) -> None:
    """Run statements, each a transaction of its own."""
    with sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
