"""What comes out of jobs: grids as arrays, completions, edits with their probes, measures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from . import wire
from .facts import Rewrite
from .kinds import is_of_heads, is_over_tokens
from .paths import Paths
from .roles import EVERY, ROLES, Role, role_tokens
from .svg import Svg, map_of_grid
from .verification import Miss, Verification, Verified

Metric: TypeAlias = Literal["probability", "log_probability", "logit_difference", "kl", "rank"]
Direction: TypeAlias = Literal["denoising", "noising"]
Engine: TypeAlias = Literal["exact", "plain", "attribution"]
Array: TypeAlias = npt.NDArray[np.float64]

#: All metrics, in the order in which results list them.
METRICS: tuple[Metric, ...] = ("probability", "log_probability", "logit_difference", "kl", "rank")
#: 1 where more of a metric is more of the answer, -1 where less is.
_SIGNS: dict[str, float] = {"kl": -1.0, "rank": -1.0}
#: The least total effect that effects are divided by: under it a share of it is noise.
_LEAST: dict[str, float] = {
    "probability": 0.05,
    "log_probability": 0.5,
    "logit_difference": 0.5,
    "kl": 0.1,
    "rank": 1.0,
}


@dataclass(frozen=True)
class Failure:
    """Why a unit has no result."""

    unit: int
    #: "transient", "worker_lost", "out_of_memory", "invalid", "poison", ...
    failure_class: str
    message: str


class Peak(NamedTuple):
    """The cell of a grid with the highest effect."""

    #: Its token, empty where a cell restores every token.
    token: str
    #: Its token's place in the prompt.
    at: int
    layer: int
    effect: float
    role: Role | None
    #: Its head, where a cell is of one.
    head: int | None = None
    #: Its neuron, in grids of neurons.
    neuron: int | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """A metric of a grid besides the probability."""

    metric: Metric
    clean: float
    corrupted: float
    #: Its mean over the rows of each cell, in the grid's shape. Read-only.
    scores: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Grid:
    """One fact and one kind of state: p(answer), or another metric, with each state restored, by
    token and layer; or, in the other direction, with each state corrupted."""

    unit: int
    prompt: str
    #: The subject as it was asked; ``subject`` says which tokens it is.
    subject_text: str
    attribute: str | None
    relation: str | None
    id: str | None
    kind: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    #: The subject's tokens.
    subject: slice
    answer: str
    answer_id: int
    #: False when another answer was expected: then the fact was not traced.
    correct: bool
    #: The metric in the clean run, and its mean over the corrupted run (NaN when not traced).
    clean: float
    corrupted: float
    layers: int
    #: The metric with the cell patched, [token, layer], of heads [token, head, layer] or, where
    #: every token is patched at once, [head, layer]; empty when not traced. Read-only.
    scores: Array = field(repr=False)
    window: int
    samples: int
    noise: str
    noise_scale: float
    seed: int
    model: str = ""
    #: What clean, corrupted and scores are: a trace gives p(answer), ``in_metric`` the others.
    metric: Metric = "probability"
    #: Denoising patches clean states into the corrupted run, noising the other way round.
    direction: Direction = "denoising"
    #: How the scores were computed; those of attribution are estimates, as ``estimate`` says.
    engine: Engine = "exact"
    #: Attribution: the inputs that gradients were averaged over, and whether effects are
    #: magnitudes without a sign.
    integrated: int = 1
    grad_drop: bool = False
    #: The prompt that corrupted it, in the place of noise, and its tokens with their numbers.
    corrupted_prompt: str | None = None
    corrupted_tokens: tuple[str, ...] = ()
    corrupted_ids: tuple[int, ...] = ()
    #: What the answer is compared with: a token, or where answers were read whole all of them.
    foil: str | None = None
    #: Whether answers were read whole, and the numbers of the answer's tokens: one, unless it was.
    whole_answers: bool = False
    answer_ids: tuple[int, ...] = ()
    #: Why it was not traced although its answer is the right one; empty where it was.
    untraced: str = ""
    #: The other metrics that were asked for.
    readings: tuple[Reading, ...] = field(default=(), repr=False)
    #: Heads of a layer, where a cell is of one; else 1.
    heads: int = 1
    #: The paths along which the heads were patched, where they were.
    paths: Paths | None = None
    #: Of neurons, which one each cell is of, [token, layer]: that with the largest estimated effect
    #: on the first metric asked for.
    neurons: npt.NDArray[np.int64] | None = field(default=None, repr=False)
    #: Cells of an estimate that were patched exactly; ``verification`` sums them up.
    verified: tuple[Verified, ...] = field(default=(), repr=False)
    _peak: Peak | None = field(default=None, repr=False)

    @classmethod
    def of(cls, unit: int, message: Any, model: str = "") -> Grid:
        """A grid from the contract's."""
        fact, layers, kind = message.fact, message.layers, wire.word(message, "kind")
        heads = max(getattr(message, "heads", 0), 1)
        shape = _shape(kind, heads, layers)
        tokens = tuple(message.tokens)
        traced = message.correct_prediction and not message.untraced
        other = wire.optional(message, "corrupted")
        foil = wire.optional(message, "foil")
        peak = None
        if wire.has_field("Grid", "peak") and message.HasField("peak"):
            it = message.peak
            subject = slice(message.subject_begin, message.subject_end)
            text = tokens[it.token] if it.token < len(tokens) else getattr(it, "text", "")
            role = _role_of(it.token, subject, len(tokens)) if tokens else _role_word(it)
            head = wire.optional(it, "head") if is_of_heads(kind) else None
            neuron = wire.optional(it, "neuron") if kind == "neuron" else None
            peak = Peak(text, it.token, it.layer, it.effect, role, head, neuron)
        return cls(
            unit=unit,
            prompt=fact.prompt,
            subject_text=fact.subject,
            attribute=wire.optional(fact, "attribute"),
            relation=wire.optional(fact, "relation"),
            id=wire.optional(fact, "id"),
            kind=kind,
            tokens=tokens,
            token_ids=tuple(message.token_ids),
            subject=slice(message.subject_begin, message.subject_end),
            answer="".join((message.answer, *(it.text for it in message.answer_rest))),
            answer_id=message.answer_id,
            correct=message.correct_prediction,
            clean=message.high,
            corrupted=message.low if traced else math.nan,
            layers=layers,
            scores=_scores(message.scores, shape),
            window=message.window,
            samples=message.samples,
            noise=message.noise,
            noise_scale=message.noise_scale,
            seed=message.seed,
            model=model,
            direction=direction_of(message),
            engine=engine_of(message),
            integrated=max(message.attribution_steps, 1),
            grad_drop=message.grad_drop,
            corrupted_prompt=None if other is None else other.prompt,
            corrupted_tokens=() if other is None else tuple(it.text for it in other.tokens),
            corrupted_ids=() if other is None else tuple(it.id for it in other.tokens),
            foil=None
            if foil is None
            else "".join((foil.text, *(it.text for it in message.foil_rest))),
            whole_answers=message.whole_answers,
            answer_ids=(message.answer_id, *(it.id for it in message.answer_rest)),
            untraced=message.untraced,
            readings=tuple(
                Reading(metric_of(it), it.clean, it.corrupted, _scores(it.scores, shape))
                for it in message.readings
            ),
            heads=heads,
            paths=Paths.of(message),
            neurons=np.array(message.neurons, dtype=np.int64).reshape(shape)
            if message.neurons
            else None,
            verified=tuple(Verified.of(it) for it in message.verified),
            _peak=peak,
        )

    @property
    def traced(self) -> bool:
        """Whether it was traced: its answer is the right one, and something corrupted it."""
        return self.correct and not self.untraced

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that it has."""
        return (self.metric, *(it.metric for it in self.readings))

    def in_metric(self, metric: Metric) -> Grid:
        """The grid with another metric in the place of its own: ``clean``, ``corrupted``,
        ``scores``, ``effect`` and ``peak`` are then of that.

        Raises:
            LookupError: it was not asked for: ``trace(metrics=[...])``.
        """
        if metric == self.metric:
            return self
        if not self.traced:
            return replace(self, metric=metric, readings=(), _peak=None)
        for place, it in enumerate(self.readings, 1):
            if it.metric == metric:
                return replace(
                    self,
                    metric=metric,
                    clean=it.clean,
                    corrupted=it.corrupted,
                    scores=it.scores,
                    readings=(),
                    verified=tuple(
                        cell._replace(
                            exact=cell.exact[place : place + 1],
                            estimate=cell.estimate[place : place + 1],
                        )
                        for cell in self.verified
                    ),
                    _peak=None,
                )
        raise LookupError(f"{metric} was not traced: {', '.join(self.metrics)} were")

    @property
    def total_effect(self) -> float:
        """How much of the answer the corruption takes away, clean - corrupted; the other way round
        in KL and rank, which fall as the answer comes back. NaN when not traced."""
        return _SIGNS.get(self.metric, 1.0) * (self.clean - self.corrupted)

    @property
    def effect(self) -> Array:
        """What restoring each cell brings back, score - corrupted, or in noising takes away,
        clean - score; the other way round in KL and rank, in the shape of ``scores``."""
        noising = self.direction == "noising"
        made: Array = self._order * (self.scores - (self.clean if noising else self.corrupted))
        made.flags.writeable = False
        return made

    @property
    def estimate(self) -> str | None:
        """What the scores are where they are estimates: "first-order estimate"; None of exact
        ones."""
        return estimate_of(self.engine, self.integrated, self.grad_drop)

    @property
    def verification(self) -> Verification | None:
        """What the verified cells say of the estimates; None without any:
        ``trace(engine="attribution", verify=K)``."""
        start = self.clean if self.direction == "noising" else self.corrupted
        effect = self.effect
        cells = []
        for it in self.verified:
            exact = self._order * (it.exact[0] - start)
            exact = abs(exact) if self.grad_drop else exact
            at: tuple[int, ...] = (it.layer,) if it.head is None else (it.head, it.layer)
            at = at if is_over_tokens(self.kind) else (it.at, *at)
            estimated = float(effect[at])
            if it.estimate:  # of a neuron, of which the grid has the strongest alone
                estimated = self._order * (it.estimate[0] - start)
            miss = Miss(it.at, it.layer, estimated, exact, it.head, it.neuron)
            cells.append((miss, it.random))
        return Verification.over(cells)

    @property
    def share(self) -> Array | None:
        """The effects as shares of the total effect: in denoising 0 for corrupted and 1 for clean.
        None where the total effect is too small to divide by."""
        total = self.total_effect
        if not abs(total) >= _LEAST[self.metric]:
            return None
        made: Array = self.effect / total
        made.flags.writeable = False
        return made

    @property
    def _order(self) -> float:
        sign = _SIGNS.get(self.metric, 1.0)
        return -sign if self.direction == "noising" else sign

    @property
    def roles(self) -> tuple[tuple[Role, ...], ...]:
        """What each token is to the subject; a token may be two things."""
        return tuple(
            tuple(role for role in ROLES if at in role_tokens(role, self.subject, len(self.tokens)))
            for at in range(len(self.tokens))
        )

    @property
    def peak(self) -> Peak | None:
        """The cell with the highest effect, the first of equals; None when not traced."""
        if self._peak is not None or self.scores.size == 0:
            return self._peak
        highest = int(np.nanargmax(self._order * self.scores))
        row, layer = divmod(highest, self.layers)
        effect = float(self.effect.flat[highest])
        head = row % self.heads if is_of_heads(self.kind) else None
        if is_over_tokens(self.kind):
            return Peak("", 0, layer, effect, "every", head)
        token = row // self.heads
        role = _role_of(token, self.subject, len(self.tokens))
        neuron = None if self.neurons is None else int(self.neurons.flat[highest])
        return Peak(self.tokens[token], token, layer, effect, role, head, neuron)

    def svg(self, ceiling: float | None = None, token: int | None = None) -> Svg:
        """The heat map, as the command line draws it. ``ceiling``: the top of its scale.
        ``token``: of heads at single tokens the one to show; else that of the peak."""
        if not self.scores.size:
            raise ValueError(f"{self.prompt!r} was not traced: there is nothing to draw")
        peak = self.peak
        if token is None and peak is not None:
            token = peak.at
        if token is None or not 0 <= token < len(self.tokens):
            raise ValueError(f"token {token} is none of the prompt's {len(self.tokens)}")
        return map_of_grid(
            kind=self.kind,
            model=self.model,
            window=self.window,
            tokens=self.tokens,
            subject=self.subject,
            answer=self.answer,
            scores=self.scores,
            corrupted=self.corrupted,
            clean=self.clean,
            ceiling=ceiling,
            metric=self.metric,
            direction=self.direction,
            effect=self.effect,
            total_effect=self.total_effect,
            page=token,
            paths=self.paths,
            estimate=self.estimate,
            whole_answers=self.whole_answers,
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        bundle = {"text/plain": str(self)}
        if self.scores.size:
            bundle["text/html"] = str(self.svg())
        return bundle

    def __str__(self) -> str:
        peak = self.peak
        shown = "" if self.paths is None else f" {self.paths}"
        shown += "" if self.metric == "probability" else f", {self.metric}"
        shown += "" if self.direction == "denoising" else f", {self.direction}"
        shown += ", whole answers" if self.whole_answers else ""
        shown += "" if self.estimate is None else f", {self.estimate}"
        said = f"{self.kind}{shown}: {self.answer!r} {self.clean:.3f} clean"
        if self.untraced:
            return f"<{said}; not traced: {self.untraced}>"
        if peak is None:
            return f"<{said}; not traced: {self.attribute!r} was expected>"
        where = "every token" if is_over_tokens(self.kind) else repr(peak.token)
        head = "" if peak.head is None else f", head {peak.head}"
        head += "" if peak.neuron is None else f", neuron {peak.neuron}"
        return (
            f"<{said}, {self.corrupted:.3f} corrupted; peaks at {where}, "
            f"layer {peak.layer}{head}: {peak.effect:.3f}>"
        )


def _shape(kind: str, heads: int, layers: int) -> tuple[int, ...]:
    """The sizes of a grid's cells, of which the first is as many as there are."""
    if is_of_heads(kind) and not is_over_tokens(kind):
        return (-1, heads, layers)
    return (-1, layers)


def _scores(values: Any, shape: tuple[int, ...]) -> Array:
    made = np.array(values, dtype=np.float64)
    made = made.reshape(shape if len(values) else (0, *shape[1:]))
    made.flags.writeable = False
    return made


def metric_of(message: Any) -> Metric:
    """The metric that a message names; the probability where it names none."""
    said = wire.word(message, "metric")
    for it in METRICS:
        if it == said:
            return it
    return "probability"


def direction_of(message: Any) -> Direction:
    """The direction that a message names; denoising where it names none."""
    if wire.word(message, "direction") == "noising":
        return "noising"
    return "denoising"


def engine_of(message: Any) -> Engine:
    """The engine that a message names; the exact one where it names none."""
    said = wire.word(message, "engine")
    if said == "plain":
        return "plain"
    return "attribution" if said == "attribution" else "exact"


def estimate_of(engine: Engine, integrated: int, grad_drop: bool) -> str | None:
    """What an engine's scores are, where they are not the exact ones."""
    if engine != "attribution":
        return None
    said = "first-order estimate"
    said += f", gradients of {integrated} steps" if integrated > 1 else ""
    return said + (", magnitudes by gradient drop" if grad_drop else "")


#: Where a token has two roles, the one that says more of it.
_FIRST_SAID: tuple[Role, ...] = (
    "last subject",
    "first subject",
    "middle subject",
    "last",
    "first subsequent",
    "further",
)


def _role_of(token: int, subject: slice, tokens: int) -> Role | None:
    return next((it for it in _FIRST_SAID if token in role_tokens(it, subject, tokens)), None)


def _role_word(peak: Any) -> Role | None:
    said = wire.word(peak, "role").replace("_", " ") if hasattr(peak, "role") else ""
    return next((role for role in (*ROLES, EVERY) if role == said), None)


@dataclass(frozen=True)
class Completion:
    """What a model adds to a prompt."""

    prompt: str
    text: str
    token_ids: tuple[int, ...]
    #: Whether the model ended the text itself.
    ended: bool

    def __str__(self) -> str:
        return self.prompt + self.text


class Probe(NamedTuple):
    """What a prompt gave before and after an edit: probabilities a token."""

    #: "rewrite", "paraphrase" or "neighbour".
    kind: str
    prompt: str
    new_before: float
    new_after: float
    true_before: float | None
    true_after: float | None

    @classmethod
    def of(cls, message: Any) -> Probe:
        """A probe from the contract's."""
        return cls(
            wire.word(message, "kind"),
            message.prompt,
            message.new_before,
            message.new_after,
            wire.optional(message, "true_before"),
            wire.optional(message, "true_after"),
        )


class Step(NamedTuple):
    """A step of an edit's optimisation, before its update."""

    loss: float
    #: The new target's negative log-probability, nats a token, and its probability.
    nll: float
    probability: float
    drift: float


@dataclass(frozen=True)
class Measured:
    """A fact of an edit of many, measured before and after."""

    unit: int
    rewrite: Rewrite
    probes: tuple[Probe, ...]
    #: How far what is said after each neighbour has moved, in nats.
    neighbour_drifts: tuple[float, ...]

    @classmethod
    def of(cls, unit: int, message: Any) -> Measured:
        """A measured fact from the contract's."""
        return cls(
            unit,
            rewrite_of(message.request),
            tuple(Probe.of(it) for it in message.probes),
            tuple(message.neighbour_drifts),
        )


@dataclass(frozen=True)
class Checked:
    """What is to be expected of a batch of an edit of many, before any target is computed."""

    batch: int
    facts: int
    #: Facts with the same text up to the subject's end have one key.
    keys: int
    #: What is unusual, in words.
    warnings: tuple[str, ...]
    #: Of each layer: the tokens of its key statistics, and figures over its keys, by name.
    layers: dict[int, tuple[int, dict[str, float]]]
    #: Pairs of keys that are nearly one, keys that are shared, and facts of earlier edits that
    #: would be overwritten: how many there are.
    near: int
    shared: int
    overwritten: int
    #: Keys that could not be read.
    left_out: int

    @classmethod
    def of(cls, it: Any) -> Checked:
        """What was found, from the contract's."""
        return cls(
            batch=it.batch,
            facts=it.facts,
            keys=it.keys,
            warnings=tuple(it.warnings),
            layers={
                one.layer: (one.tokens, {n.key: n.value for n in one.figures}) for one in it.layers
            },
            near=it.near_count,
            shared=it.shared_count,
            overwritten=it.overwritten_count,
            left_out=it.left_out,
        )


class Score(NamedTuple):
    """What a version thinks of an object, or of a text."""

    #: Mean negative log-probability, nats a token.
    nll: float
    tokens: int
    #: Tokens that are the likeliest where they stand.
    likeliest: int


class Answer(NamedTuple):
    """What a prompt of an evaluation gave."""

    kind: str
    new: Score | None
    true: Score | None


@dataclass(frozen=True)
class Measure:
    """What a version answers to a record."""

    #: ES, EM, PS, PM, NS, NM and GE of CounterFact; EA, PA, NA and GE of zsRE; E, P and N EXACT and
    #: CONTAINS of both. Of tests by criterion the share that is passed; of choices by task 1 or 0.
    figures: dict[str, float]
    answers: tuple[Answer, ...]
    texts: tuple[str, ...]
    #: Of a text: what it thinks of every token after the first.
    text: Score | None
    #: How prompts go on freely: one an answer, or one a query of the tests.
    continuations: tuple[str, ...] = ()
    #: What it thinks of each answer of a choice.
    choices: tuple[Score, ...] = ()

    @classmethod
    def of(cls, message: Any) -> Measure:
        """A measure from the contract's."""
        return cls(
            {it.key: it.value for it in message.figures},
            tuple(
                Answer(wire.word(it, "kind"), _score(it, "new_object"), _score(it, "true_object"))
                for it in message.answers
            ),
            tuple(message.texts),
            _score(message, "text"),
            tuple(message.continuations),
            tuple(Score(it.nll, it.tokens, it.likeliest) for it in message.choices),
        )


def _score(message: Any, name: str) -> Score | None:
    found = wire.optional(message, name)
    return None if found is None else Score(found.nll, found.tokens, found.likeliest)


@dataclass(frozen=True)
class Evaluated:
    """A record on a version."""

    unit: int
    measured: Measure
    #: With an edit for each record: what the version answers without it.
    before: Measure | None

    @classmethod
    def of(cls, unit: int, message: Any) -> Evaluated:
        """An evaluated record from the contract's."""
        before = Measure.of(message.before) if message.HasField("before") else None
        return cls(unit, Measure.of(message.measured), before)


def rewrite_of(message: Any) -> Rewrite:
    """A fact to rewrite from the contract's."""
    return Rewrite(
        prompt=message.prompt,
        subject=message.subject,
        target=message.target_new,
        true=wire.optional(message, "target_true"),
        id=wire.optional(message, "id"),
    )


def failure_of(unit: int, message: Any) -> Failure:
    """A failure from the contract's."""
    return Failure(unit, wire.word(message, "failure_class"), message.message)
