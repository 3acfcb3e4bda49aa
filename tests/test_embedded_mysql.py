"""MariaDB as a child process: who may come in, what outlives a kill, where it does as MySQL does, and other servers on PATH."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest

from runner.errors import MachineError
from runner.services import SERVICES, connect_mysql
from runner.stack import Address
from runner.stack import embedded_mysql as module
from runner.stack.embedded_mysql import MysqlServer, Server, find_server, initialise
from runner.stack.provision import Cache

Start = Callable[[Path], Address]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start a server in a folder, as the stack does; where one runs already, kill it first. All end with the module."""
    running: dict[Path, tuple[subprocess.Popen[bytes], Address]] = {}

    def start_server(folder: Path) -> Address:
        if folder in running:
            before, address = running[folder]
            before.send_signal(signal.SIGKILL)
            before.wait()
        else:
            folder.mkdir()
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = Address("127.0.0.1", free.getsockname()[1], "root", "admin-secret")
        server, cache = MysqlServer(), Cache()
        server.fetch(cache)
        launch = server.launch(cache, folder, address)
        assert "admin-secret" not in " ".join(launch.argv)
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(launch.argv, stdout=log, stderr=log)
        running[folder] = process, address
        while True:
            with contextlib.suppress(pymysql.OperationalError):
                SERVICES["mysql"].probe(address)
                return address
            assert process.poll() is None, (folder / "log").read_text()

    yield start_server
    for process, _ in running.values():
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Address:
    return start(tmp_path_factory.mktemp("server") / "mysql")


def read_row(address: Address, query: str) -> dict[str, object]:
    with connect_mysql(address, database=None) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    assert row is not None
    return row


def test_root_needs_the_password_from_the_first_moment(address: Address) -> None:
    for user in ("root", "", "mysql", "mariadb.sys"):
        with pytest.raises(pymysql.OperationalError, match="Access denied"):
            pymysql.connect(host=address.host, port=address.port, user=user, password="")
    accounts = read_row(address, "SELECT GROUP_CONCAT(User, '@', Host ORDER BY User) AS them FROM mysql.user")
    assert accounts == {"them": "mariadb.sys@localhost,root@%"}


def test_it_listens_on_loopback_and_on_a_socket_inside_its_folder(address: Address) -> None:
    seen = read_row(address, "SELECT @@bind_address AS bind, @@socket AS socket, @@datadir AS data, @@max_connections AS most")
    assert seen == {"bind": "127.0.0.1", "socket": "mysql.sock", "data": seen["data"], "most": 300}
    assert (Path(str(seen["data"])) / "mysql.sock").is_socket()


def test_it_does_as_mysql_does(address: Address) -> None:
    settings = "@@innodb_snapshot_isolation AS snapshot, @@transaction_isolation AS isolation, @@character_set_server AS chars"
    assert read_row(address, f"SELECT {settings}") == {"snapshot": 0, "isolation": "REPEATABLE-READ", "chars": "utf8mb4"}
    assert read_row(address, "SELECT 'e' = 'É' AS accents, 'e' = 'e ' AS padding") == {"accents": 1, "padding": 0}


def test_an_update_after_anothers_commit_overwrites_it_as_in_mysql(address: Address) -> None:
    with connect_mysql(address, database=None) as one, connect_mysql(address, database=None) as two:
        ours, theirs = one.cursor(), two.cursor()
        ours.execute("CREATE DATABASE lost")
        ours.execute("CREATE TABLE lost.updates (n INT)")
        ours.execute("INSERT INTO lost.updates VALUES (1)")
        ours.execute("BEGIN")
        ours.execute("SELECT n FROM lost.updates")
        theirs.execute("UPDATE lost.updates SET n = 2")
        # With MariaDB's snapshot isolation this is error 1020; MySQL lets the update be lost.
        ours.execute("UPDATE lost.updates SET n = 10")
        ours.execute("COMMIT")
        theirs.execute("SELECT n FROM lost.updates")
        assert theirs.fetchone() == {"n": 10}


def test_what_was_committed_outlives_a_kill(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "mysql"
    address = start(folder)
    with connect_mysql(address, database=None) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE kept")
        cursor.execute("CREATE TABLE kept.numbers (n INT)")
        for n in range(50):
            cursor.execute("INSERT INTO kept.numbers VALUES (%s)", (n,))
        assert start(folder) == address
    assert read_row(address, "SELECT COUNT(*) AS kept FROM kept.numbers") == {"kept": 50}


def test_two_run_side_by_side(start: Start, address: Address, tmp_path: Path) -> None:
    other = start(tmp_path / "other")
    with connect_mysql(other, database=None) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE only_here")
    assert read_row(address, "SELECT COUNT(*) AS n FROM information_schema.schemata WHERE schema_name = 'only_here'") == {"n": 0}


@pytest.fixture
def no_jar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JARS", {})


def test_without_a_build_a_mariadbd_on_the_path_serves(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    program = find_server(Cache()).program
    request.getfixturevalue("no_jar")
    monkeypatch.setenv("LABS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_server(Cache()).program == program
    address = start(tmp_path / "mysql")
    assert "MariaDB" in str(read_row(address, "SELECT VERSION() AS version"))


@pytest.mark.usefixtures("no_jar")
def test_without_any_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "SYSTEM_FOLDERS", ())
    with pytest.raises(MachineError, match=r"nobody publishes a MariaDB build for .*, and there is no mariadbd or mysqld") as raised:
        MysqlServer().fetch(Cache(tmp_path / "cache"))
    assert "apt install mariadb-server-core" in raised.value.hint


def test_a_server_that_cannot_set_up_its_data_is_told_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "mysqld"
    program.write_text("#!/bin/sh\necho 'libcrypt.so.1: cannot open shared object file'\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(MachineError, match=r"could not set up its data \(exit code 127\)\n  \| libcrypt\.so\.1: cannot open"):
        initialise(Server(program, is_mariadb=False), tmp_path)
