"""Jobs: handles that survive the process that made them."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .. import errors, receipts, wire
from ..progress import Bar
from ..results import Failure, failure_of
from ..values import ENDED, Counts, JobSummary, Progress, Task, last
from ..wire import v1
from . import bridge
from .transport import AsyncTransport



class AsyncJob:
    """A job by its name. ``client.job(id)`` gives it again, in any process."""

    def __init__(self, transport: AsyncTransport, message: Any) -> None:
        self._transport = transport
        self._message = message
        self._results: list[Any] | None = None

    @property
    def id(self) -> str:
        """Its identifier."""
        return last(self._message.name)

    @property
    def name(self) -> str:
        """Its resource's name, ``jobs/{id}``."""
        return str(self._message.name)

    @property
    def url(self) -> str | None:
        """Its page in the console, where ``connect(console=...)`` or ``client.console`` says where
        that is; else None."""
        console = self._transport.settings.console
        return f"{console.rstrip('/')}/{self.name}" if console else None

    @property
    def kind(self) -> str:
        """What is done: "trace", "generate", "stats", "edit", "eval" or "mass_edit"."""
        return str(self._message.WhichOneof("spec"))

    @property
    def spec(self) -> Any:
        """What was asked, as the contract has it."""
        return getattr(self._message, self.kind)

    @property
    def state(self) -> str:
        """Where it was when it was last looked at: "queued", "running", "succeeded", ..."""
        return wire.word(self._message, "state")

    @property
    def counts(self) -> Counts:
        """How its tasks and units stood then."""
        return Counts.of(self._message.counts)

    @property
    def model(self) -> str:
        """The model that it runs on."""
        return last(self._message.model)

    @property
    def version(self) -> str:
        """The digest of the version that it runs on."""
        return last(self._message.version)

    @property
    def summary_of_job(self) -> JobSummary:
        """The job as lists have it."""
        return JobSummary.of(self._message)

    async def refresh(self) -> str:
        """Looks at the job again, and gives its state."""
        request = v1.GetJobRequest(name=self.name)
        self._message = (await self._transport.call("JobService/GetJob", request)).job
        return self.state

    async def watch(
        self, after: int | None = None, timeout: float | None = None
    ) -> AsyncIterator[Progress]:
        """How the job goes, until it has ended. A coordinator that is restarted meanwhile is
        waited for, and nothing is lost or told twice.

        Args:
            after: the sequence of the last event that was seen; 0 for all of them. By default
                what happens from now on.
            timeout: seconds after which it ends in ``Timeout``.
        """
        until = None if timeout is None else time.monotonic() + timeout
        transport = self._transport
        await self.refresh()
        sequence = self._message.last_sequence if after is None else after
        yield self._progress(self._message, None, sequence, ())
        if self.state in ENDED and after is None:
            return
        away_since: float | None = None
        turn = 0
        while True:
            request = v1.WatchJobRequest(name=self.name, after_sequence=sequence)
            failed: errors.Error | None = None
            state = ""
            try:
                left = None if until is None else max(until - time.monotonic(), 0.0)
                async for update in transport.stream("JobService/WatchJob", request, left):
                    away_since, turn = None, 0
                    if update.events:
                        sequence = update.events[-1].sequence
                    committed = tuple(
                        event.unit_committed
                        for event in update.events
                        if event.WhichOneof("event") == "unit_committed"
                    )
                    state = wire.word(update.job, "state")
                    yield self._progress(update.job, update.progress, sequence, committed)
            except (errors.Unavailable, errors.Internal, errors.TooMany) as error:
                failed = error
            if failed is None and state in ENDED:
                await self.refresh()
                return
            now = time.monotonic()
            away_since = now if away_since is None else away_since
            if failed is not None and now - away_since > transport.patience:
                raise failed
            if until is not None and now > until:
                raise errors.Timeout(f"job {self.id} was watched for {timeout} s")
            await bridge.sleep(min(0.1 * 2.0**turn, 2.0))
            turn += 1
            if failed is None and await self.refresh() in ENDED:
                yield self._progress(self._message, None, sequence, ())
                return

    @staticmethod
    def _progress(job: Any, progress: Any, sequence: int, committed: tuple[int, ...]) -> Progress:
        counts = job.counts
        step = ""
        if progress is not None and progress.edits and progress.edits[-1].steps:
            edit = progress.edits[-1]
            it = edit.steps[-1]
            step = (
                f"step {it.number + 1}/{edit.most_steps} loss {it.loss:.2f} p {it.probability:.2f}"
            )
        return Progress(
            state=wire.word(job, "state"),
            units=counts.units,
            done=counts.units_done,
            failed=counts.units_failed,
            cached=counts.units_cached,
            rate=0.0 if progress is None else progress.steps_per_second,
            workers=0 if progress is None else progress.workers,
            stage="" if progress is None else progress.stage.title,
            step=step,
            sequence=sequence,
            committed=committed,
        )

    async def wait(self, timeout: float | None = None, progress: bool | None = None) -> None:
        """Waits until the job has ended.

        Args:
            timeout: seconds; the job goes on after them.
            progress: whether a bar is shown; by default in notebooks and terminals.

        Raises:
            JobFailed: it ended without all its results, or is held.
            Timeout: it has not ended by then.
        """
        bar = Bar(self.id, progress)
        try:
            async for now in self.watch(timeout=timeout):
                bar.show(now)
                if now.state == "held":
                    break
        except errors.Timeout:
            why = await self.explain()
            raise errors.Timeout(
                f"job {self.id} has not ended after {timeout or 0:g} s, and goes on: {why}"
            ) from None
        except KeyboardInterrupt:
            print(f"job {self.id} goes on: client.job({self.id!r}) is it", file=sys.stderr)
            raise
        finally:
            bar.close()
        state = await self.refresh()
        if state == "succeeded":
            return
        if state == "held":
            raise errors.JobFailed(
                f"job {self.id} is held: tasks of it are in quarantine, because several workers "
                "were lost while they ran them; requeue() gives them another round, cancel() "
                "gives it up",
                self,
            )
        failures = tuple(await self.failures(limit=20))
        why = f": {failures[0].message}" if failures else ""
        counts = self.counts
        what = f"{counts.failed} of {counts.units} units failed" if counts.failed else state
        raise errors.JobFailed(f"job {self.id}: {what}{why}", self, failures)

    async def cancel(self) -> str:
        """Cancels the job; what was committed stays readable. Gives its state."""
        request = v1.CancelJobRequest(name=self.name)
        await self._transport.call("JobService/CancelJob", request)
        return await self.refresh()

    async def requeue(self) -> int:
        """Gives its tasks in quarantine another round, and says how many there were."""
        request = v1.RequeueQuarantinedRequest(name=self.name)
        done = await self._transport.call("JobService/RequeueQuarantined", request)
        return int(done.tasks_requeued)

    async def explain(self) -> str:
        """Says in words why its tasks are not running."""
        request = v1.ExplainJobRequest(name=self.name)
        told = await self._transport.call("JobService/ExplainJob", request)
        return "\n".join(told.reasons)

    async def tasks(self, states: Sequence[str] = ()) -> list[Task]:
        """Its tasks, of some states or of all."""
        request = v1.ListTasksRequest(parent=self.name)
        if states and wire.has_field("ListTasksRequest", "states"):
            request.states.extend(wire.number("TaskState", state) for state in states)
        pages = self._transport.pages("JobService/ListTasks", request, "tasks")
        found = [Task.of(it) async for it in pages]
        return [it for it in found if not states or it.state in states]

    async def failures(self, limit: int | None = None) -> list[Failure]:
        """The units that have no result, and why."""
        found: list[Failure] = []
        async for it in self._unit_results(failures_only=True):
            found.append(failure_of(it.unit, it.failure))
            if limit is not None and len(found) >= limit:
                break
        return found

    async def _unit_results(
        self,
        *,
        kind: str | None = None,
        relation: str | None = None,
        correct: bool | None = None,
        failures_only: bool = False,
        peaks: bool = False,
    ) -> AsyncIterator[Any]:
        """Results as the contract has them. The server filters what it can; the rest is done here,
        so that an older one gives the same."""
        request = v1.ListResultsRequest(parent=self.name, page_size=1000)
        if wire.has_field("ListResultsRequest", "view"):
            request.failures_only = failures_only
            if peaks:
                request.view = wire.number("ResultView", "peaks")
            if kind is not None:
                request.kind = wire.number("Kind", kind)
            if relation is not None:
                request.relation = relation
            if correct is not None:
                request.correct = correct
        pages = self._transport.pages("JobService/ListResults", request, "results")
        async for it in pages:
            outcome = it.WhichOneof("outcome")
            if failures_only:
                if outcome == "failure":
                    yield it
                continue
            if outcome == "grid":
                grid = it.grid
                if kind is not None and wire.word(grid, "kind") != kind:
                    continue
                if relation is not None and grid.fact.relation != relation:
                    continue
                if correct is not None and grid.correct_prediction != correct:
                    continue
            yield it

    async def _all_results(self) -> list[Any]:
        """Everything, kept once the job has ended."""
        if self._results is not None:
            return self._results
        ended = self.state in ENDED or await self.refresh() in ENDED
        found = [it async for it in self._unit_results()]
        if ended:
            self._results = found
        return found

    async def results(self) -> list[Any]:
        """The results, as the contract has them, in the order of units."""
        return list(await self._all_results())

    async def receipt(self, with_results: bool = False) -> dict[str, Any]:
        """A receipt of what it was asked and what it came to, once it has ended: to be kept as
        JSON, and checked by ``palimpsest.verify_receipt`` or ``palimpsest verify-receipt``."""
        request = v1.GetReceiptRequest(name=self.name)
        told = await self._transport.call("AuditService/GetReceipt", request)
        results = await self._all_results() if with_results else None
        return receipts.made(told.receipt, results)

    def __repr__(self) -> str:
        counts = self.counts
        return (
            f"<{type(self).__name__} {self.id}: {self.state}, {counts.done} of {counts.units} units"
            f" on {self.model}>"
        )
