"""Manifests: what an author signed of a version, and the files that it is of."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from . import errors, merkle

_HEAD = "palimpsest-manifest/1"
_NAMES = ("version", "base", "parent", "author", "time", "why", "edits")
#: What a manifest is called in the folder that it is of.
_MANIFEST = "palimpsest.manifest"


@dataclass(frozen=True)
class Manifest:
    """A manifest that holds: its author signed it, and its files are as they were then."""

    #: The version, its base's digest, and the version that it was made from.
    version: str
    base: str
    parent: str
    #: Who made it, when (RFC 3339), and why.
    author: str
    time: str
    why: str
    #: How many edits it has, and of each matrix that they touch its type and BLAKE3.
    edits: int
    matrices: dict[str, tuple[str, str]] = field(repr=False)
    #: Of each file its size and SHA-256; none where the version alone was signed.
    files: dict[str, tuple[int, str]] = field(repr=False)

    def __str__(self) -> str:
        held = f"{len(self.files)} files" if self.files else "no files"
        return f"{self.version} by {self.author or 'nobody'}: {self.edits} edits, {held}"


def verify_manifest(path: str | os.PathLike[str], key: str) -> Manifest:
    """Checks what an author signed, offline: the signature, and every file that it is of.

    Args:
        path: a folder that ``palimpsest export --sign`` wrote, the manifest beside a file of it, or
            what ``palimpsest sign`` printed.
        key: the author's key, as they gave it to you and not as it came with the files.

    Raises:
        AuditBroken: something does not hold; the error says what, each file that was altered, that
            is missing, or that is in the folder and was not signed.
    """
    path = Path(path)
    whole = path.is_dir()
    file = path / _MANIFEST if whole else path
    try:
        _, text = merkle.read_signed(file.read_text(encoding="utf-8"), key, "the manifest")
        manifest = _parsed(text)
    except ValueError as error:
        raise errors.AuditBroken((str(error),)) from None
    wrong = []
    for name, said in manifest.files.items():
        try:
            found = _measured(file.parent / name)
        except OSError as error:
            wrong.append(f"{name} cannot be read ({error.strerror})")
            continue
        if found != said:
            wrong.append(f"{name} was altered")
    if whole and manifest.files:
        there = {it.name for it in path.iterdir()} - {_MANIFEST}
        wrong += [f"{name} is not of it" for name in sorted(there - set(manifest.files))]
    if wrong:
        raise errors.AuditBroken(tuple(wrong))
    return manifest


def _measured(file: Path) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def _parsed(text: str) -> Manifest:
    head, *lines = text.removesuffix("\n").split("\n")
    fields = [line.partition(" ")[::2] for line in lines]
    names = [name for name, _ in fields]
    rest = names[len(_NAMES) :]
    matrices = rest.count("matrix")
    files = rest.count("file")
    none = ValueError("the manifest's lines are not those of one")
    if head != _HEAD or names != [*_NAMES, *["matrix"] * matrices, *["file"] * files]:
        raise none
    said = {name: "" if value == "-" else value for name, value in fields[: len(_NAMES)]}
    threes = [value.split(" ", 2) for _, value in fields[len(_NAMES) :]]
    try:
        of_matrices = {name: (dtype, digest) for digest, dtype, name in threes[:matrices]}
        of_files = {name: (int(size), digest) for digest, size, name in threes[matrices:]}
        edits = int(said["edits"])
    except ValueError:
        raise none from None
    # A name that leads elsewhere is of no manifest that the program writes.
    if any(Path(name).name != name or name in ("", "..") for name in of_files):
        raise none
    return Manifest(
        said["version"],
        said["base"],
        said["parent"],
        said["author"],
        said["time"],
        said["why"],
        edits,
        of_matrices,
        of_files,
    )
