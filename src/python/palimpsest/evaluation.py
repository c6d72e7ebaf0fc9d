"""Means over the records of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from .averages import Mean, _Welford
from .results import Measure


class Measures(Mapping[str, Mean]):
    """The means of figures over records, by name; and the perplexity of texts."""

    def __init__(self, means: Mapping[str, Mean], perplexity: float | None) -> None:
        self._means = dict(means)
        #: exp of the mean over all tokens of all texts; None where there was no text.
        self.perplexity = perplexity

    @classmethod
    def over(cls, measures: Iterable[Measure | None]) -> Measures:
        """The means over records."""
        sums: dict[str, _Welford] = {}
        nll, tokens = 0.0, 0
        for it in measures:
            if it is None:
                continue
            for name, value in it.figures.items():
                sums.setdefault(name, _Welford(1)).add(value)
            if it.text is not None:
                nll += it.text.nll * it.text.tokens
                tokens += it.text.tokens
        means = {name: one.at() for name, one in sums.items()}
        return cls(means, math.exp(nll / tokens) if tokens else None)

    def __getitem__(self, name: str) -> Mean:
        return self._means[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._means)

    def __len__(self) -> int:
        return len(self._means)

    def __repr__(self) -> str:
        said = [f"{name} {mean}" for name, mean in self._means.items()]
        said += [] if self.perplexity is None else [f"perplexity {self.perplexity:.4g}"]
        return f"<{', '.join(said) or 'nothing'}>"
