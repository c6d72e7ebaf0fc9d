"""Certificates that are soon no longer valid, by openssl: the program's own last for years."""

import os
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

#: Seconds that a certificate is valid.
VALID = 240

_SETTINGS = """
[ca]
default_ca = it
[it]
policy = any
database = index
serial = serial
unique_subject = no
new_certs_dir = issued
default_md = sha256
x509_extensions = names
[names]
subjectAltName = ${ENV::NAMES}
[any]
commonName = supplied
[req]
distinguished_name = none
[none]
"""
_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Authority:
    """Signs for the coordinator, the workers, and the one who asks."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "issued").mkdir(parents=True)
        (folder / "index").touch()
        (folder / "settings").write_text(_SETTINGS)
        self._openssl(
            f"req -x509 -config settings {_KEY} -days 30 -subj /CN=soak -keyout ca.key -out ca.pem "
            "-addext basicConstraints=critical,CA:true"
        )
        self.renew()
        self._make("late", "URI:palimpsest://admin/late", -60)

    def renew(self) -> None:
        """New certificates in the place of those that were there."""
        self._make("server", "IP:127.0.0.1", VALID)
        self._make("admin", "URI:palimpsest://admin/soak", VALID)
        self._make("worker", "URI:palimpsest://worker/soak", VALID)

    def _make(self, name: str, names: str, valid: float) -> None:
        now = datetime.now(timezone.utc)
        # Clocks may jump back by an hour.
        start, end = (
            (now + timedelta(seconds=it)).strftime("%y%m%d%H%M%SZ") for it in (-7200, valid)
        )
        self._openssl(
            f"req -new -config settings {_KEY} -subj /CN={name} -keyout new.key -out new.csr", names
        )
        self._openssl(
            "ca -batch -config settings -cert ca.pem -keyfile ca.key -notext -rand_serial "
            f"-in new.csr -out new.pem -startdate {start} -enddate {end}",
            names,
        )
        for kind in ("key", "pem"):
            os.replace(self.folder / f"new.{kind}", self.folder / f"{name}.{kind}")

    def _openssl(self, command: str, names: str = "DNS:none") -> None:
        done = subprocess.run(
            ["openssl", *command.split()],
            cwd=self.folder,
            env={**os.environ, "NAMES": names},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"openssl {command}: {done.stderr}")
