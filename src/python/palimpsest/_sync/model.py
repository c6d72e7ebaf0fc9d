# Made from _async/model.py by unasync.py: change that one.
"""A model and one of its refs: what jobs are asked of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from .. import corpus, facts, wire
from ..facts import EvalSet, FactsLike
from ..kinds import Kind
from ..paths import paths_to
from ..results import Checked, Direction, Engine, Metric
from ..values import Plan, Version
from ..wire import v1
from .asking import Asking, Dtype, edit_settings, edit_spec
from .draft import Draft
from .jobs import (
    SHOWN,
    EditJob,
    Evaluation,
    MassEditJob,
    Sweep,
)

Compat: TypeAlias = Literal["none", "paper-code"]
Corruption: TypeAlias = Literal["noise", "counterfactual", "pairs"]
Method: TypeAlias = Literal["r-rome", "rome", "ft-l"]
MassMethod: TypeAlias = Literal["memit", "alphaedit", "emmet", "encore"]

#: Bytes of facts or records that travel in a request; more of them go as an object.
INLINE = 1 << 20


class Model(Asking):
    """A model by its name, at a ref or version: ``client.model("gpt2", ref="main")``."""

    def trace(
        self,
        facts_: FactsLike,
        *,
        subject: str | None = None,
        attribute: str | None = None,
        corrupted: str | None = None,
        foil: str | None = None,
        kinds: Sequence[Kind] = ("hidden", "mlp", "attn"),
        receivers: Sequence[str] = (),
        frozen_mlps: bool = False,
        corrupt: Corruption | None = None,
        direction: Direction | None = None,
        metrics: Sequence[Metric] = (),
        whole_answers: bool = False,
        noise: str | float | None = None,
        samples: int | None = None,
        seed: int = 1,
        window: int = 10,
        engine: Engine | None = None,
        integrated: int | None = None,
        grad_drop: bool = False,
        verify: int | None = None,
        dtype: Dtype | None = None,
        compat: Compat | None = None,
        noise_corpus: Sequence[str] | None = None,
        wait: bool = True,
        progress: bool | None = None,
        **options: Any,
    ) -> Sweep:
        """Traces facts: where is it that the model keeps what it answers?

        Args:
            facts_: facts, dicts, a DataFrame, a file of facts; or a prompt, with its ``subject``.
            attribute: with one prompt: its expected answer; ``corrupted``: the prompt that
                corrupts it, of as many tokens; ``foil``: the answer that ``logit_difference``
                compares with, else the one to the corrupted prompt.
            receivers: path patching: ``head`` and ``head_all`` act along the paths into these
                alone; ``9.6.q`` is the query of head 6 of layer 9, k and v are of key-value heads.
            frozen_mlps: whether the MLPs on these paths are held as the other heads are.
            corrupt: what corrupts: ``noise``, which is what is done where no prompt is given;
                ``counterfactual``: a fact's own ``corrupted``, or the prompt of another fact with
                the same relation and template and another answer; ``pairs``: only facts' own.
            direction: ``denoising`` (the default) puts clean states into the corrupted run,
                ``noising`` corrupted ones into the clean run.
            metrics: which metrics are shown: ``probability`` where none is named.
            whole_answers: whether answers are read whole, by the mean over their tokens, each behind
                those before it, and not by their first token.
            noise: a standard deviation, or a rule: ``s3`` (the default), ``u0.5``, ``m``, ``t5``,
                with ``replace:`` before it.
            samples: noise samples a cell, 10 by default. Another prompt takes neither.
            engine: ``exact``; ``plain``, one full pass a cell; ``attribution``, first-order estimates
                of all cells by gradients, which ``grid.estimate`` says.
            integrated: attribution: the mean of the gradients over so many inputs between the runs.
            grad_drop: attribution: magnitudes over gradients that leave out one layer each.
            verify: attribution: patch so many cells of each grid exactly that have the largest
                estimates of the first metric, and as many others by chance: ``grid.verification``.
            noise_corpus: texts, which the rules ``m`` and ``t`` need.
            wait: whether to wait until it has ended.
            options: ``on`` (a version), ``display_name``, ``priority``, ``no_cache``, ``owner``.

        Raises:
            InvalidArgument: a setting is wrong; the error names it.
            JobFailed: it ended without all its results.
        """
        if subject is not None:
            if not isinstance(facts_, str):
                raise TypeError("a subject goes with one prompt: facts have theirs")
            fact = facts.fact_of(facts_, subject)
            fact = replace(fact, attribute=attribute, corrupted=corrupted, foil=foil)
            listed = facts.Facts([fact])
        elif (attribute, corrupted, foil) != (None, None, None):
            raise TypeError("attribute, corrupted and foil go with one prompt: facts have theirs")
        else:
            listed = facts.Facts.of(facts_)
        spec = v1.TraceSpec(
            kinds=[wire.number("Kind", kind) for kind in kinds],
            corruption=wire.number("Corruption", corrupt or ("pairs" if corrupted else None)),
            direction=wire.number("Direction", direction),
            metrics=[wire.number("Metric", metric) for metric in metrics],
            whole_answers=whole_answers,
            noise="" if noise is None else str(noise),
            samples=samples or 0,
            seed=seed,
            window=window,
            engine=wire.number("Engine", engine),
            attribution_steps=integrated or 0,
            grad_drop=grad_drop,
            verify=verify or 0,
            dtype=wire.number("Dtype", dtype),
            compat=wire.number("Compat", compat),
        )
        if receivers or frozen_mlps:
            spec.paths.CopyFrom(paths_to(receivers, frozen_mlps))
        messages = [it.message() for it in listed]
        if sum(it.ByteSize() + 4 for it in messages) > INLINE:
            whole = v1.FactList(facts=messages).SerializeToString()
            spec.facts_object = self._transport.upload(whole)
        else:
            spec.facts.extend(messages)
        if noise_corpus is not None:
            text = corpus.lines(noise_corpus)
            spec.noise_corpus.digest = self._transport.upload(text)
            spec.noise_corpus.size = len(text)
        sweep: Sweep = self._submit(options, trace=spec)
        if wait:
            sweep.wait(progress=progress)
            if len(listed) <= SHOWN:
                sweep.results()
        return sweep

    def edit(
        self,
        prompt: str,
        *,
        subject: str,
        target: str,
        true: str | None = None,
        paraphrases: Sequence[str] = (),
        neighbours: Sequence[str] = (),
        layer: int | None = None,
        collect: bool = False,
        progress: bool | None = None,
        **settings: Any,
    ) -> Draft:
        """Computes an edit that rewrites a fact, and measures it. No version has it until it is
        committed.

        Args:
            prompt: the sentence up to its object, with ``{}`` for the subject.
            target: what the model is to say; ``true``: what is so, where it is known.
            neighbours: prompts about other subjects, which should stay as they are.
            layer: where it goes (``sweep.locate().layer``); by default the family's.
            collect: whether missing key statistics are collected first.
            settings: ``method``, ``parameters``, ``contexts``, ``seed``, ``dtype``,
                ``layer_choice``, ``statistics_name``, and the options of ``trace``; ``gates``, what
                it must pass (``{"efficacy": 0.5, "ppl_ratio": 1.02, "locality": 0.9}``), and
                ``gate_texts``, the texts whose perplexity is measured before and after; with the
                gate ``downstream_drop``, the most that accuracy may drop by on any task,
                ``gate_questions``: ``Choice``s, as ``read_choices`` gives them, 1,000 at most.

        Raises:
            StatisticsMissing: the layer has no key statistics: ``collect_statistics``.
            JobFailed: it could not be computed.
        """
        fact = facts.Rewrite(prompt, subject, target, true, tuple(paraphrases), tuple(neighbours))
        return Draft.computed(self, fact, layer, collect, progress, settings)

    def edit_sequence(
        self,
        facts_: Any,
        *,
        ref: str | None = None,
        layer: int | None = None,
        why: str = "",
        rebase: bool = False,
        keep_going: bool = False,
        collect: bool = False,
        wait: bool = True,
        progress: bool | None = None,
        **settings: Any,
    ) -> EditJob:
        """Writes facts one after the other, each on the version that the one before made; the
        branch (by default this model's ref) moves with every one that passes its gates."""
        spec, options = edit_spec(facts.rewrites_of(facts_), layer, settings)
        spec.ref_id, spec.why = ref or self.ref_id, why
        spec.rebase, spec.keep_going = rebase, keep_going
        options.setdefault("on", "")
        job: EditJob = self._submit_edit(options, collect, edit=spec)
        if wait:
            job.wait(progress=progress)
        return job

    def edit_many(
        self,
        facts_: Any,
        *,
        method: MassMethod = "memit",
        layers: Sequence[int] = (),
        ref: str | None = None,
        batch: int | None = None,
        why: str = "",
        collect: bool = False,
        wait: bool = True,
        progress: bool | None = None,
        **settings: Any,
    ) -> MassEditJob:
        """Writes many facts at once: an edit, a version and a movement of the branch for each
        batch; all facts are one where none is given. ``plan_many`` says before what that is, and
        ``check_many`` what is to be expected of it.

        Args:
            settings: those of ``edit`` except ``layer``; ``keep_going`` leaves out a fact that
                cannot be written, ``statistics_names`` says which key statistics are used.

        Raises:
            StatisticsMissing: a layer has no key statistics, and ``collect`` is not set.
        """
        spec, options = self._mass_spec(facts_, method, layers, ref, batch, why, settings)
        options.setdefault("on", "")
        job: MassEditJob = self._submit_edit(options, collect, mass_edit=spec)
        if wait:
            job.wait(progress=progress)
        return job

    def check_many(
        self,
        facts_: Any,
        *,
        method: MassMethod = "memit",
        layers: Sequence[int] = (),
        ref: str | None = None,
        batch: int | None = None,
        collect: bool = False,
        progress: bool | None = None,
        **settings: Any,
    ) -> list[Checked]:
        """The pre-flight of ``edit_many``: reads the keys of all facts and says what is to be
        expected of each batch. No target is computed, and no version is made."""
        asked = {**settings, "check_only": True}
        job: MassEditJob = self.edit_many(
            facts_,
            method=method,
            layers=layers,
            ref=ref,
            batch=batch,
            collect=collect,
            progress=progress,
            **asked,
        )
        return job.checks()

    def plan_many(
        self,
        facts_: Any,
        *,
        method: MassMethod = "memit",
        layers: Sequence[int] = (),
        ref: str | None = None,
        batch: int | None = None,
        **settings: Any,
    ) -> Plan:
        """What ``edit_many`` would do, with everything checked and nothing accepted."""
        spec, options = self._mass_spec(facts_, method, layers, ref, batch, "", settings)
        options.setdefault("on", "")
        self._store_gate_inputs(options, mass_edit=spec)
        job = self._create(options, validate_only=True, mass_edit=spec)
        return Plan.of(job.mass_edit)

    def _mass_spec(
        self,
        facts_: Any,
        method: str,
        layers: Sequence[int],
        ref: str | None,
        batch: int | None,
        why: str,
        settings: dict[str, Any],
    ) -> tuple[Any, dict[str, Any]]:
        common, options = edit_settings(settings)
        for name in ("keep_going", "check_only", "statistics_names"):
            if name in options:
                common[name] = options.pop(name)
        tasks = [it.task() for it in facts.rewrites_of(facts_)]
        alone = v1.MassEditSpec(tasks=tasks)
        if alone.ByteSize() > INLINE:
            common["tasks_object"] = self._transport.upload(alone.SerializeToString())
            tasks = []
        spec = v1.MassEditSpec(
            tasks=tasks,
            method=method,
            layers=layers,
            ref_id=ref or self.ref_id,
            batch=batch,
            why=why,
            **common,
        )
        return spec, options

    def evaluate(
        self,
        records: Any,
        *,
        against: str | Version | None = None,
        set: EvalSet | None = None,  # noqa: A002
        seed: int = 0,
        dtype: Dtype | None = None,
        edit_each: dict[str, Any] | None = None,
        free_generation: bool | None = None,
        wait: bool = True,
        progress: bool | None = None,
        **options: Any,
    ) -> Evaluation:
        """Measures what a version answers to the records of CounterFact, zsRE or QAEdit, how well it
        foretells texts, which tests it passes and which choices it takes; beside another version,
        by default the unedited model.

        Args:
            records: a data set's file, dicts, ``Record``s, ``Choice``s, or plain texts.
            free_generation: continue the prompts of facts freely, too, and look for the answers in
                what comes; as is done unless it is False.
            edit_each: settings of ``edit`` (``layer``, ``method``, ...) to edit each record on its
                own, measure it, and discard the edit.
        """
        found, listed = facts.records_of(records)
        spec = v1.EvalSpec(
            set=wire.number("EvalSet", set or found), seed=seed, dtype=wire.number("Dtype", dtype)
        )
        if free_generation is not False:
            spec.free_generation = (set or found) in ("counterfact", "zsre") or bool(free_generation)
        messages = [it.message() for it in listed]
        if sum(it.ByteSize() + 4 for it in messages) > INLINE:
            whole = v1.EvalRecordList(records=messages).SerializeToString()
            spec.records_object = self._transport.upload(whole)
        else:
            spec.records.extend(messages)
        if against is not None:
            spec.against = self.version_name(against)
        if edit_each is not None:
            asked = dict(edit_each)
            layer = asked.pop("layer", None)
            each, more = edit_spec([], layer, asked)
            options = {**more, **options}
            spec.edit_each.CopyFrom(each)
        job: Evaluation = self._submit(options, eval=spec)
        if wait:
            job.wait(progress=progress)
        return job
