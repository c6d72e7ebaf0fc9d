"""The contract's messages, made from its descriptors when the package is imported.

No code is generated: ``contract.bin`` is the contract as the server has it (a test of the server
compares the two), so one package works with every protobuf and grpcio of its bounds.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from importlib import resources
from typing import Any, NamedTuple

# Read when grpc is first imported: a notebook's ``!ls`` forks, and would print warnings or hang.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: E402

__all__ = ["METHODS", "Method", "has_field", "number", "optional", "rpc", "time", "v1", "word"]

PACKAGE = "palimpsest.v1"
_HERE = __name__.rpartition(".")[0]


def _load() -> Any:
    # A pool of our own: whatever else a process has loaded of google's files is not in the way.
    pool = descriptor_pool.DescriptorPool()
    data = resources.files(_HERE).joinpath("contract.bin").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL: Any = _load()


class _Messages:
    """The classes of a package's messages, as attributes: ``v1.Job``."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        try:
            descriptor = _POOL.FindMessageTypeByName(f"{self._package}.{name}")
        except KeyError:
            raise AttributeError(f"the contract has no message {name}") from None
        made = message_factory.GetMessageClass(descriptor)
        setattr(self, name, made)
        return made


v1 = _Messages(PACKAGE)
rpc = _Messages("google.rpc")


class Method(NamedTuple):
    """A method of a service."""

    path: str
    request: Any
    response: Any
    takes_stream: bool
    gives_stream: bool


def _methods() -> dict[str, Method]:
    data = resources.files(_HERE).joinpath("contract.bin").read_bytes()
    found: dict[str, Method] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        for service in file.service:
            for method in service.method:
                classes = [
                    message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name.lstrip(".")))
                    for name in (method.input_type, method.output_type)
                ]
                found[f"{service.name}/{method.name}"] = Method(
                    f"/{file.package}.{service.name}/{method.name}",
                    classes[0],
                    classes[1],
                    method.client_streaming,
                    method.server_streaming,
                )
    return found


#: Every method of the contract, by ``JobService/CreateJob``.
METHODS: dict[str, Method] = _methods()


def has_field(message: str, field: str) -> bool:
    """Whether the contract has a field: programs may be older than the package or newer."""
    return field in getattr(v1, message).DESCRIPTOR.fields_by_name


def _prefix(enum: Any) -> str:
    """What every value of an enum begins with: ``JobState`` has ``JOB_STATE_``."""
    name = enum.name
    words = "".join(f"_{c}" if i and c.isupper() else c for i, c in enumerate(name))
    return words.upper() + "_"


def word(message: Any, field: str) -> str:
    """An enum's value as a word: ``KIND_MLP`` is ``mlp``; a value that is not known its number."""
    return value_word(message.DESCRIPTOR.fields_by_name[field].enum_type, getattr(message, field))


def value_word(enum: Any, value: int) -> str:
    """A value of an enum as a word."""
    known = enum.values_by_number.get(value)
    if known is None:
        return str(value)
    name: str = known.name.removeprefix(_prefix(enum))
    return name.lower()


def number(enum: str, value: str | None) -> int:
    """The number of an enum's word; 0 for none."""
    if value is None:
        return 0
    descriptor = _POOL.FindEnumTypeByName(f"{PACKAGE}.{enum}")
    wanted = _prefix(descriptor) + value.upper().replace("-", "_")
    found = descriptor.values_by_name.get(wanted)
    if found is None:
        known = [value_word(descriptor, it.number) for it in descriptor.values if it.number]
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return int(found.number)


def words_of(message: Any, field: str) -> tuple[str, ...]:
    """A repeated enum's values as words."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    return tuple(value_word(enum, value) for value in getattr(message, field))


def optional(message: Any, field: str) -> Any:
    """The value of a field that may be absent."""
    return getattr(message, field) if message.HasField(field) else None


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def time(message: Any, field: str) -> datetime | None:
    """A moment, in UTC."""
    if not message.HasField(field):
        return None
    stamp = getattr(message, field)
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def stamp(moment: datetime) -> Any:
    """A moment as the contract has it; one without a zone is taken for local time."""
    since = moment.astimezone(timezone.utc) - _EPOCH
    whole = since // timedelta(seconds=1)
    made = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("google.protobuf.Timestamp"))
    rest = (since - timedelta(seconds=whole)) // timedelta(microseconds=1)
    return made(seconds=whole, nanos=rest * 1000)
