"""A folder with everything that is worn: settings, a disk of the store's own, processes."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from authority import Authority

ROOT = Path(__file__).resolve().parents[2]
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
#: Bytes of the store's disk.
DISK = 1 << 30

SETTINGS = """
[serve]
heartbeat_interval = "200ms"
lease_duration = "2s"
task_time = "1s"
max_attempts = 1000
poison_workers = 1000
tls_certificate = "{folder}/tls/server.pem"
tls_key = "{folder}/tls/server.key"
client_ca = "{folder}/tls/ca.pem"

[client]
server = "{server}"
ca = "{folder}/tls/ca.pem"
certificate = "{folder}/tls/admin.pem"
key = "{folder}/tls/admin.key"
patience = "1m"

[worker]
coordinator = "{server}"
ca = "{folder}/tls/ca.pem"
certificate = "{folder}/tls/worker.pem"
key = "{folder}/tls/worker.key"
device = "cpu"
threads = 1
drain_timeout = "2s"
"""

BUCKET = """
[store]
log = "bucket"
takeover = "2s"
bucket = "s3://pal/soak"
endpoint = "http://127.0.0.1:{port}"
credentials = "{folder}/key"
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the system gives away."""
    return random.sample([port for port in range(8_000, 10_000) if not answers(port)], count)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as it:
        return it.connect_ex(("127.0.0.1", port)) == 0


class Child:
    """A process that was started here."""

    def __init__(self, name: str, command: list[str], log: Path, **more):
        self.name, self.log = name, log
        self.begun = time.monotonic()
        self.said_before = log.stat().st_size if log.exists() else 0
        self.awaited = False  # whether its end was asked for
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **more
            )

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    @property
    def age(self) -> float:
        return time.monotonic() - self.begun

    def signal(self, number: int) -> None:
        if self.lives:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.awaited = True
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Asks it to end, and gives its status."""
        self.awaited = True
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait() or 1

    def said(self) -> str:
        """What it has said since it was started."""
        with open(self.log, "rb") as log:
            log.seek(self.said_before)
            return log.read().decode(errors="replace")

    def measure(self) -> tuple[int, int]:
        """Its resident bytes and its open descriptors; nothing of one that has ended."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{self.process.pid}/fd"))
        except (OSError, IndexError):
            return 0, 0


class Machine:
    """Where coordinators, workers and commands run."""

    def __init__(self, program: Path, folder: Path, bucket: bool):
        self.program, self.folder, self.bucket = program, folder, bucket
        self.disk = folder / "disk"
        self.skipped: list[str] = []
        if self.disk.exists():
            subprocess.run(["umount", self.disk], capture_output=True)
            shutil.rmtree(folder)
        self.disk.mkdir(parents=True)
        size = f"size={DISK}"
        mount = ["mount", "-t", "tmpfs", "-o", size, "soak", self.disk]
        self.own_disk = subprocess.run(mount, capture_output=True).returncode == 0
        if not self.own_disk:
            self.skipped.append("full disks: a disk of the store's own needs root")
        self.clock = folder / "clock"
        self.clock.write_text("+0\n")
        self.clocks = FAKETIME.exists()
        if not self.clocks:
            self.skipped.append("clock jumps: no libfaketime; tests/simulation has them")
        self.authority = Authority(folder / "tls")
        self.ports = free_ports(2 if bucket else 1)
        self.server = ",".join(f"https://127.0.0.1:{port}" for port in self.ports)
        settings = SETTINGS.format(folder=folder, server=self.server)
        self.moto = None
        if bucket:
            (port,) = free_ports(1)
            settings += BUCKET.format(folder=folder, port=port)
            (folder / "key").write_text(
                "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = hush\n"
            )
            self._start_bucket(port)
        (folder / "palimpsest.toml").write_text(settings)

    def _start_bucket(self, port: int) -> None:
        python = ROOT / ".deps/moto/bin/python"
        command = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.moto = Child("moto", command, self.folder / "moto.log")
        while not answers(port):
            time.sleep(0.1)
        # A signature that is none is taken unless the server was told to look.
        with socket.create_connection(("127.0.0.1", port)) as it:
            it.sendall(
                b"PUT /pal HTTP/1.1\r\nHost: s3\r\nContent-Length: 0\r\nConnection: close\r\n"
                b"Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, "
                b"SignedHeaders=host, Signature=x\r\n\r\n"
            )
            while it.recv(4096):
                pass

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PALIMPSEST")}
        return {**kept, "NO_COLOR": "1", "HOME": str(self.folder)}

    def store(self, n: int) -> Path:
        """The folder of a coordinator's store."""
        return self.disk / f"store-{n}"

    def serve(self, n: int) -> Child:
        listen = f"127.0.0.1:{self.ports[n]}"
        command = [self.program, "serve", "--listen", listen, "--store", self.store(n)]
        if self.bucket:
            command.append("--standby")
        environment = self.environment()
        if self.clocks:
            environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        log = self.folder / f"serve-{n}.log"
        return Child(f"serve-{n}", command, log, cwd=self.folder, env=environment)

    def worker(self, number: int) -> Child:
        name = f"worker-{number}"
        command = [self.program, "worker", "--id", name, "--cache", self.folder / "cache"]
        log = self.folder / "workers.log"
        return Child(name, command, log, cwd=self.folder, env=self.environment())

    def run(
        self, *arguments: str, seconds: float = 240, more: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Runs a command: its status, its output, and what it said beside."""
        try:
            done = subprocess.run(
                [self.program, *arguments],
                cwd=self.folder,
                env=self.environment() | (more or {}),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            said = (error.stderr or b"").decode(errors="replace")
            return 124, "", f"it did not end within {seconds:.0f} s: {said}"
        return done.returncode, done.stdout, done.stderr

    def fill(self) -> Path | None:
        """Fills the store's disk to its last byte; gives what is to be removed again."""
        ballast = self.disk / "ballast"
        try:
            with open(ballast, "wb") as out:
                piece = bytes(1 << 20)
                while True:
                    out.write(piece)
                    out.flush()
        except OSError:
            return ballast

    def size(self) -> dict[str, int]:
        """Bytes of the store, a part each; of several the largest."""
        sizes = {"log": 0, "records": 0, "objects": 0}
        for n in range(len(self.ports)):
            for part in sizes:
                used = 0
                for folder, _, files in os.walk(self.store(n) / part):
                    for file in files:
                        try:
                            used += os.stat(os.path.join(folder, file)).st_blocks * 512
                        except OSError:
                            pass  # removed meanwhile
                sizes[part] = max(sizes[part], used)
        return sizes

    def close(self) -> None:
        if self.moto:
            self.moto.kill()
        if self.own_disk:
            # What was worn stays to be looked at.
            kept = self.folder / "kept"
            shutil.copytree(self.disk, kept)
            subprocess.run(["umount", self.disk], capture_output=True)
