"""Completions of prompts on versions, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from .results import Completion


@dataclass(frozen=True)
class Completions:
    """What versions add to prompts: ``texts[prompt][version]``. Iterating gives the first's."""

    prompts: tuple[str, ...]
    versions: tuple[str, ...]
    #: A column a version: its completions, in the order of prompts.
    columns: tuple[tuple[Completion, ...], ...]

    @property
    def texts(self) -> list[list[str]]:
        """The texts that were added, a row a prompt."""
        return [[column[n].text for column in self.columns] for n in range(len(self.prompts))]

    def __iter__(self) -> Iterator[Completion]:
        return iter(self.columns[0])

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, at: int) -> Completion:
        return self.columns[0][at]

    def to_pandas(self) -> Any:
        """A DataFrame: a row a prompt, a column a version."""
        import pandas

        index = pandas.Index(self.prompts, name="prompt")
        columns = pandas.Index(self.versions)
        return pandas.DataFrame(self.texts, index=index, columns=columns)

    def __str__(self) -> str:
        lines = []
        for prompt, row in zip(self.prompts, self.texts):
            lines += [prompt] if len(row) > 1 else []
            for version, text in zip(self.versions, row):
                lines.append(f"  {version}: {text}" if len(row) > 1 else f"{prompt}{text}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(it)}</th>" for it in ("prompt", *self.versions))
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(it)}</td>" for it in (prompt, *row)) + "</tr>"
            for prompt, row in zip(self.prompts, self.texts)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
