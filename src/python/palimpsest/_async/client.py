"""A connection to a coordinator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from .. import errors, local, wire
from ..settings import Settings
from ..values import JobKind, JobState, JobSummary, ModelInfo, Status, Worker, last
from ..version import __version__
from ..wire import v1
from . import bridge, program
from .audit import AsyncAudit
from .jobs import handle
from .model import AsyncModel
from .transport import AsyncTransport


class AsyncClient:
    """A connection to a coordinator, and what one does with it.

    Args:
        settings: where it is, and what it is shown.
        patience: seconds that a coordinator which does not answer is waited for, by calls that
            may be repeated and while a job is watched.
    """

    def __init__(self, settings: Settings, *, patience: float = 60.0) -> None:
        # Without an address it is a server of one's own, which open() starts or joins.
        self.settings = settings.check() if settings.server else settings
        self._own: local.Own | None = None
        self._transport = AsyncTransport(self.settings, patience)
        #: The audit log.
        self.audit = AsyncAudit(self._transport)

    async def open(self) -> None:
        """Connects, so that what is wrong with the address or the credentials shows at once. One
        of several may be about to take over: they are waited for.

        Raises:
            NoServer: nobody answers; or there is no server, and none can be started.
            Unauthenticated: the coordinator does not know who calls.
        """
        if self.settings.server is None:
            self._own = await bridge.aside(local.join_or_start, self.settings)
            self.settings = replace(self.settings, server=self._own.address).check()
            self._transport.settings = self.settings
        self._transport.open()
        try:
            patience = self._transport.patience if self.settings.are_several else 0.0
            told = await self.status(timeout=10.0, patience=patience)
            if self._own is not None and told.version != __version__:
                warnings.warn(
                    f"the program is version {told.version}, this package {__version__}",
                    stacklevel=2,
                )
        except (errors.Unavailable, errors.Timeout) as error:
            await self.close()
            raise errors.NoServer(
                f"no coordinator answers at {self.settings.server} ({error.message}): is "
                "'palimpsest serve' running there?"
            ) from error

    async def close(self) -> None:
        """Ends the connection. Jobs go on; those of a server of one's own when it is there again,
        for it leaves with the last who is connected."""
        await self._transport.close()
        if self._own is not None:
            own, self._own = self._own, None
            await bridge.aside(own.leave)
            self.settings = replace(self.settings, server=None)
            self._transport.settings = self.settings

    async def __aenter__(self) -> AsyncClient:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def status(self, timeout: float = 30.0, patience: float | None = None) -> Status:
        """How the coordinator is, and who it takes the caller for: a line, when printed."""
        request = v1.GetStatusRequest()
        told = await self._transport.call(
            "StatusService/GetStatus", request, timeout=timeout, patience=patience
        )
        return Status.of(told.status)

    async def whoami(self) -> str:
        """The caller's name, as the audit log has it."""
        return (await self.status()).principal

    async def models(self) -> list[ModelInfo]:
        """The models, by name."""
        pages = self._transport.pages("ModelService/ListModels", v1.ListModelsRequest(), "models")
        return [ModelInfo.of(it) async for it in pages]

    def model(self, name: str, ref: str = "main") -> AsyncModel:
        """A model at a ref or a version; nothing is asked yet."""
        return AsyncModel(self._transport, name, ref)

    async def import_model(self, source: str, name: str | None = None) -> AsyncModel:
        """Imports a checkpoint: a folder or a file that ``palimpsest model import`` takes. That
        program does it: it reads and digests every tensor.

        Raises:
            NoServer: the program is not found.
            Error: it failed; the message is its own.
        """
        known = {it.id for it in await self.models()} if name is None else set()
        named = ["--name", name] if name is not None else []
        said = await program.run(
            self.settings, ["model", "import", source, *named], "model import"
        )
        if name is None:
            new = [it.id for it in await self.models() if it.id not in known]
            if len(new) != 1:
                raise errors.Error(f"which model it is cannot be told: give a name\n{said}")
            name = new[0]
        return self.model(name)

    async def jobs(
        self,
        *,
        state: JobState | Sequence[JobState] = (),
        owner: str = "",
        kind: JobKind | None = None,
        model: str = "",
        text: str = "",
        limit: int | None = 100,
    ) -> list[JobSummary]:
        """Jobs, the newest first, that pass all filters.

        Args:
            text: what is in the display name, or ends the job's name.
            limit: how many at most; None for all.
        """
        states = (state,) if isinstance(state, str) else tuple(state)
        request = v1.ListJobsRequest(page_size=min(limit or 1000, 1000))
        # A coordinator that is older gives all: they are filtered here, too.
        if wire.has_field("ListJobsRequest", "states"):
            request.states.extend(wire.number("JobState", it) for it in states)
            request.owner, request.text = owner, text
            request.model = f"models/{last(model)}" if model else ""
            request.kind = wire.number("JobKind", kind)
        found: list[JobSummary] = []
        async for message in self._transport.pages("JobService/ListJobs", request, "jobs"):
            it = JobSummary.of(message)
            if states and it.state not in states or owner and it.owner != owner:
                continue
            if kind and it.kind != kind or model and it.model != last(model):
                continue
            if text and text.lower() not in it.display_name.lower() and not it.id.endswith(text):
                continue
            found.append(it)
            if limit is not None and len(found) >= limit:
                break
        return found

    async def job(self, job: str) -> Any:
        """A job by its identifier, or the newest: ``job("latest")``. Its class is that of its
        kind: a ``Sweep``, an ``Evaluation``, ..."""
        if job == "latest":
            newest = await self.jobs(limit=1)
            if not newest:
                raise errors.NotFound("there is no job yet")
            job = newest[0].id
        request = v1.GetJobRequest(name=f"jobs/{last(job)}")
        found = await self._transport.call("JobService/GetJob", request)
        return handle(self._transport, found.job)

    async def workers(self) -> list[Worker]:
        """The workers, and what each does."""
        request = v1.ListWorkersRequest()
        pages = self._transport.pages("WorkerService/ListWorkers", request, "workers")
        found: list[Worker] = []
        async for it in pages:
            if it.excluded:
                state = "excluded"
            elif not it.connected:
                state = "away"
            elif it.draining:
                state = "draining"
            else:
                state = "busy" if it.leases else "idle"
            able = it.capabilities
            found.append(Worker(last(it.name), state, able.host, able.device, len(it.leases)))
        return found

    async def raw(self, method: str, request: Any) -> Any:
        """Calls a method of the contract with its own messages:
        ``raw("JobService/GetJob", wire.v1.GetJobRequest(name=...))``."""
        return await self._transport.call(method, request)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.server}>"
