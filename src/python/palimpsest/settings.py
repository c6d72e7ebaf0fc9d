"""The settings of a connection, read as the command line reads them.

Each comes from the last of these that has one: its default; the user's name from ``USER`` or
``LOGNAME``; the file (the one that is named, else ``palimpsest.toml`` in the working folder, else
``palimpsest/palimpsest.toml`` in ``$XDG_CONFIG_HOME``); ``PALIMPSEST__CLIENT__NAME``; an argument.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .errors import NoServer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAMES = ("server", "ca", "certificate", "key", "token_file", "insecure", "user", "store", "console")

#: The longest path of a socket that Linux takes, in bytes.
_LONGEST = 107


def socket_path(address: str) -> str | None:
    """The path of ``unix:PATH``; None of other addresses."""
    if not address.startswith("unix:"):
        return None
    path = address.removeprefix("unix:")
    return path.removeprefix("//")


@dataclass(frozen=True)
class Settings:
    """How a coordinator is reached, and what it is shown. The token is in no ``repr``."""

    server: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token_file: Path | None = None
    token: str | None = field(default=None, repr=False)
    insecure: bool = False
    user: str | None = None
    #: The folder of everything that a server of one's own keeps.
    store: Path | None = None
    #: Where the coordinator's console is, for links to its pages.
    console: str | None = None
    #: The file that was named, for a server that is started.
    config: Path | None = None

    @property
    def is_secure(self) -> bool:
        """Whether the coordinator is called over TLS."""
        return (self.server or "").startswith("https://")

    @property
    def addresses(self) -> list[str]:
        """The address; those of several coordinators that follow one log, of which one leads."""
        server = self.server or ""
        return [server] if socket_path(server) is not None else server.split(",")

    @property
    def are_several(self) -> bool:
        """Whether one of several coordinators is meant."""
        return len(self.addresses) > 1

    @property
    def target(self) -> str:
        """The address as gRPC takes it, and as people know the coordinator by."""
        path = socket_path(self.server or "")
        if path is not None:
            return f"unix:{quote(path)}"
        return ",".join(f"{host}:{port}" for host, port in map(_place, self.addresses))

    def places(self) -> str:
        """The target of a channel. Several are numbers, in whose order gRPC looks for one that
        takes the connection, whenever it has none: names are looked up here.

        Raises:
            NoServer: none of the names is known.
        """
        if not self.are_several:
            return self.target
        asked = [_place(it) for it in self.addresses]
        found = {
            family: [it for place in asked for it in _numbers(place, family)]
            for family in (socket.AF_INET, socket.AF_INET6)
        }
        family = max(found, key=lambda it: len(found[it]))
        if not found[family]:
            raise NoServer(f"no name of {self.server} is known: give names that are, or addresses")
        scheme = "ipv4" if family == socket.AF_INET else "ipv6"
        return f"{scheme}:{','.join(found[family])}"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call says of who calls."""
        said: list[tuple[str, str]] = []
        if self.user:
            plain = "".join(c if " " <= c <= "~" else "?" for c in self.user)
            said.append(("palimpsest-principal", plain))
        token = self.token
        if token is None and self.token_file is not None:
            token = _read(self.token_file).decode(errors="replace").strip()
            if not token or len(token.split()) != 1:
                raise NoServer(f"{self.token_file} should hold a token, alone")
        if token is not None:
            said.append(("authorization", f"Bearer {token}"))
        return tuple(said)

    def tls(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The authority, the key and the certificate, in PEM."""
        files = (self.ca, self.key, self.certificate)
        ca, key, certificate = (None if it is None else _read(it) for it in files)
        return ca, key, certificate

    def check(self) -> Settings:
        """The same settings.

        Raises:
            NoServer: there is no address, or it would be called in a way that is not allowed.
        """
        if not self.server:
            raise NoServer(
                "no server is named: connect('http://HOST:PORT'), client.server in "
                "palimpsest.toml, or PALIMPSEST__CLIENT__SERVER; 'palimpsest serve' starts one"
            )
        path = socket_path(self.server)
        if path is not None:
            bytes_ = len(os.fsencode(path))
            if not 0 < bytes_ <= _LONGEST:
                raise NoServer(
                    f"{self.server!r} is not an address: the path of a socket has 1 to {_LONGEST} "
                    f"bytes, and this one {bytes_}"
                )
            return self
        for address in self.addresses:
            if not _is_address(address):
                raise NoServer(f"{address!r} is not an address: http://HOST:PORT is one, or unix:PATH")
            if address.startswith("https:") != self.is_secure:
                raise NoServer(f"{self.server}: give all with https://, or all with http://")
        if (self.certificate is None) != (self.key is None):
            raise NoServer("give certificate and key, or neither")
        if self.is_secure and self.ca is None:
            raise NoServer("name in ca the authority that vouches for the coordinator")
        shows = self.token is not None or self.token_file is not None
        if (
            shows
            and not self.is_secure
            and not (self.insecure and all(map(_is_this_machine, self.addresses)))
        ):
            raise NoServer(
                f"the token is not shown to {self.server}, which is called without TLS, where "
                "others read it: call it as https://HOST:PORT, with the authority in ca; on this "
                "machine alone, insecure=True allows it"
            )
        return self


def _is_address(address: str) -> bool:
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def _place(address: str) -> tuple[str, int]:
    """The host and the port of an address."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def _numbers(place: tuple[str, int], family: socket.AddressFamily) -> list[str]:
    """A place in numbers of a family; none where it has none. Those of IPv4 can be written as
    IPv6, so that a name that has no other can stand beside one that has no IPv4."""
    host, port = place
    flags = socket.AI_V4MAPPED if family == socket.AF_INET6 else 0
    try:
        found = socket.getaddrinfo(
            host.strip("[]"), port, family, socket.SOCK_STREAM, flags=flags
        )
    except OSError:
        return []
    number = str(found[0][4][0])
    return [f"[{number}]:{port}" if family == socket.AF_INET6 else f"{number}:{port}"]


def _is_this_machine(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NoServer(f"cannot use {path}: {error.strerror}") from error


def read(
    *,
    config: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    **given: Any,
) -> Settings:
    """The settings of a connection; ``given`` are those that the caller gave.

    Raises:
        NoServer: the file cannot be read.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for name in ("USER", "LOGNAME"):
        if environment.get(name):
            values["user"] = environment[name]
            break
    else:
        values["user"] = _system_user()
    path = _file(config, environment, folder or Path.cwd())
    if path is not None:
        try:
            section = tomllib.loads(_read(path).decode()).get("client", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise NoServer(f"the file {path}: {error}") from error
        values.update({name: section[name] for name in _NAMES if name in section})
    by_name = {name.lower(): value for name, value in environment.items()}
    chosen = False
    for name in _NAMES:
        value = by_name.get(f"palimpsest__client__{name}")
        if value is not None:
            values[name] = value
            # A token of the environment was given to this process, with its address.
            chosen = chosen or name == "token_file"
    if chosen and "insecure" not in values:
        values["insecure"] = True
    values.update({name: value for name, value in given.items() if value is not None})
    if given.get("token") is not None and given.get("token_file") is None:
        values.pop("token_file", None)
    home = environment.get("HOME", "")
    server = _text(values.get("server"))
    where = socket_path(server or "")
    if where:
        server = f"unix:{_path(where, home)}"
    data = environment.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        data = f"{home}/.local/share" if home else ""
    store = _text(values.get("store"))
    if store is not None and store.startswith("$XDG_DATA_HOME/") and data:
        store = data + store.removeprefix("$XDG_DATA_HOME")
    elif store is None and data:
        store = f"{data}/palimpsest"
    made = Settings(
        server=server,
        store=_path(store, home),
        config=None if config is None else Path(config),
        insecure=str(values.get("insecure", False)).lower() == "true",
        user=_text(values.get("user")),
        console=_text(values.get("console")),
        token=values.get("token"),
        **{
            name: _path(values.get(name), home)
            for name in ("ca", "certificate", "key", "token_file")
        },
    )
    if given.get("store") is not None and given.get("server") is None:
        # Whoever names a store means the server of that.
        made = replace(made, server=None)
    if made.server and socket_path(made.server) is None:
        each = [it.strip() for it in made.server.split(",")]
        whole = [it.rstrip("/") if "://" in it else f"http://{it}" for it in each]
        made = replace(made, server=",".join(whole))
    return made


def _file(
    config: str | os.PathLike[str] | None, environment: Mapping[str, str], folder: Path
) -> Path | None:
    if config is not None:
        return Path(config)
    home = environment.get("HOME", "")
    base = environment.get("XDG_CONFIG_HOME", "")
    places = [folder / "palimpsest.toml"]
    if base.startswith("/"):
        places.append(Path(base) / "palimpsest/palimpsest.toml")
    elif home.startswith("/"):
        places.append(Path(home) / ".config/palimpsest/palimpsest.toml")
    return next((place for place in places if place.is_file()), None)


def _system_user() -> str | None:
    """The name that the system has for whoever runs this."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return None


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


def _path(value: Any, home: str) -> Path | None:
    if value in (None, ""):
        return None
    text = os.fspath(value)
    return Path(home) / text[2:] if text.startswith("~/") and home else Path(text)
