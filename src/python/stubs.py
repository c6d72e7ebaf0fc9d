"""Makes ``palimpsest/wire.pyi`` from ``contract.bin``: the types of the contract's messages, for
editors and type checkers. The messages themselves are made when the package is imported.

python stubs.py            writes it
python stubs.py --check    fails where it is not what is written
"""

import ast
import sys
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

PACKAGE = Path(__file__).parent / "palimpsest"
HEAD = '''\
# Made from contract.bin and wire.py by stubs.py: change those.
from collections.abc import Iterable, Iterator, MutableMapping
from datetime import datetime
from typing import Any, Generic, NamedTuple, SupportsIndex, TypeVar, overload

from typing_extensions import Self

T = TypeVar("T")

class Message:
    """What every message has."""

    DESCRIPTOR: Any
    def SerializeToString(self) -> bytes: ...
    @classmethod
    def FromString(cls, data: bytes) -> Self: ...
    def ByteSize(self) -> int: ...
    def CopyFrom(self, other: Any) -> None: ...
    def MergeFrom(self, other: Any) -> None: ...
    def ClearField(self, name: str) -> None: ...
    def HasField(self, name: str) -> bool: ...
    def WhichOneof(self, name: str) -> str | None: ...

class Repeated(Generic[T]):
    """A repeated field."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T]: ...
    @overload
    def __getitem__(self, at: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __delitem__(self, at: SupportsIndex | slice) -> None: ...
    def __add__(self, other: Any) -> list[T]: ...
    def __radd__(self, other: Any) -> list[T]: ...
    def add(self, **fields: Any) -> T: ...
    def append(self, value: T) -> None: ...
    def extend(self, values: Iterable[T]) -> None: ...

'''
F = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    F.TYPE_DOUBLE: "float",
    F.TYPE_FLOAT: "float",
    F.TYPE_BOOL: "bool",
    F.TYPE_STRING: "str",
    F.TYPE_BYTES: "bytes",
}


def type_of(field: Any) -> str:
    """A field's type, one of it."""
    if field.type == F.TYPE_MESSAGE:
        package, _, name = field.type_name.lstrip(".").rpartition(".")
        for known, short in (("palimpsest.v1", "v1"), ("google.rpc", "rpc")):
            if f"{package}.{name}".startswith(f"{known}."):
                return f"{short}.{f'{package}.{name}'.removeprefix(f'{known}.')}"
        return "Any"
    # Enums are their numbers.
    return SCALARS.get(field.type, "int")


def message(it: Any, indent: str, lines: list[str]) -> None:
    """The class of a message, with those that are inside it."""
    lines.append(f"{indent}class {it.name}(Message):")
    inner = indent + "    "
    maps = {one.name: one for one in it.nested_type if one.options.map_entry}
    for one in it.nested_type:
        if not one.options.map_entry:
            message(one, inner, lines)
    given = []
    for field in it.field:
        entry = maps.get(field.type_name.rpartition(".")[2])
        if entry is not None:
            key, value = (type_of(one) for one in entry.field)
            has, takes = f"MutableMapping[{key}, {value}]", f"MutableMapping[{key}, {value}]"
        elif field.label == F.LABEL_REPEATED:
            has, takes = f"Repeated[{type_of(field)}]", f"Iterable[{type_of(field)}]"
        else:
            has = takes = type_of(field)
        lines.append(f"{inner}{field.name}: {has}")
        given.append(f"{field.name}: {takes} | None = ...")
    if given:
        lines.append(f"{inner}def __init__(self, *, {', '.join(given)}) -> None: ...")
    else:
        lines.append(f"{inner}def __init__(self) -> None: ...")


def functions() -> list[str]:
    """What else wire.py has, without its bodies."""
    source = (PACKAGE / "wire.py").read_text(encoding="utf-8")
    lines = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
            lines.append(f"def {node.name}({ast.unparse(node.args)}){returns}: ...")
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            lines.append(f"class {node.name}({', '.join(map(ast.unparse, node.bases))}):")
            fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
            lines += [f"    {ast.unparse(one)}" for one in fields]
    return lines


def made() -> str:
    """The file."""
    data = (PACKAGE / "contract.bin").read_bytes()
    lines: list[str] = []
    for package, short in (("google.rpc", "rpc"), ("palimpsest.v1", "v1")):
        lines.append(f"class {short}:")
        for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
            if file.package == package:
                for it in file.message_type:
                    message(it, "    ", lines)
        lines.append("")
    lines += ["PACKAGE: str", "METHODS: dict[str, Method]", *functions()]
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    target, text = PACKAGE / "wire.pyi", made()
    if "--check" not in sys.argv:
        target.write_text(text, encoding="utf-8")
        return 0
    wrong = not target.exists() or target.read_text(encoding="utf-8") != text
    if wrong:
        print("wire.pyi is not made from contract.bin; run python stubs.py")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
