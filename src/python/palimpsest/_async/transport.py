"""Calls over one channel: who asks, what is asked again, and errors with their remedies."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from .. import blake3, errors, wire
from ..settings import Settings
from ..wire import v1
from . import bridge

#: Seconds that an ordinary call may take, and bytes of an object in a message.
DEADLINE = 120.0
PIECE = 1 << 20

#: Calls that may be repeated whatever became of them: they read, or give the same again.
_REPEATABLE = ("Get", "List", "Query", "Prove", "Compare", "Explain", "Verify")
_ALSO = (
    "JobService/CreateJob",  # with its request_id
    "JobService/CancelJob",
    "JobService/RequeueQuarantined",
    "StatisticsService/CreateStatistics",
    "ModelService/CreateModel",
)


def _may_repeat(method: str) -> bool:
    return method in _ALSO or method.partition("/")[2].startswith(_REPEATABLE)


class AsyncTransport:
    """A channel to a coordinator. ``patience``: seconds that one that is away is waited for."""

    def __init__(self, settings: Settings, patience: float) -> None:
        self.settings = settings
        self.patience = patience
        self._metadata = settings.metadata()
        self._channel: Any = None

    def open(self) -> None:
        """Makes the channel, once."""
        if self._channel is None:
            self.settings.check()
            self._channel = bridge.open_channel(self.settings)

    async def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    def _callable(self, method: str) -> tuple[Any, wire.Method]:
        known = wire.METHODS.get(method)
        if known is None:
            raise errors.Error(f"the contract of this package has no {method}")
        self.open()
        kinds = {
            (False, False): "unary_unary",
            (False, True): "unary_stream",
            (True, False): "stream_unary",
            (True, True): "stream_stream",
        }
        make = getattr(self._channel, kinds[known.takes_stream, known.gives_stream])
        call = make(
            known.path,
            request_serializer=known.request.SerializeToString,
            response_deserializer=known.response.FromString,
        )
        return call, known

    async def call(
        self, method: str, request: Any, timeout: float = DEADLINE, patience: float | None = None
    ) -> Any:
        """Calls ``JobService/GetJob``. One that may be repeated waits for a coordinator that is
        away; one that is refused for now is asked again when the server says, if that is soon."""
        call, _ = self._callable(method)
        patience = self.patience if patience is None else patience
        start, turn = time.monotonic(), 0
        while True:
            try:
                return await call(request, timeout=timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                failed = errors.of_call(error)
            pause = self._pause(failed, method, turn)
            if pause is None or time.monotonic() - start + pause > patience:
                raise failed
            turn += 1
            await bridge.sleep(pause)

    @staticmethod
    def _pause(failed: errors.Error, method: str, turn: int) -> float | None:
        """Seconds until a call is made again; None for never. With jitter: many may wait."""
        jitter = 1.0 + random.random() / 4
        if failed.retry_after is not None and isinstance(
            failed, (errors.TooMany, errors.Unavailable)
        ):
            return max(failed.retry_after, 0.05) * jitter
        away = isinstance(failed, errors.Unavailable)
        return min(0.1 * 2.0**turn, 2.0) * jitter if away and _may_repeat(method) else None

    async def stream(
        self, method: str, request: Any, timeout: float | None = None
    ) -> AsyncIterator[Any]:
        """The messages of a call that gives a stream. It ends when it is no more iterated over."""
        call, _ = self._callable(method)
        running = call(request, metadata=self._metadata, timeout=timeout)
        try:
            async for message in running:
                yield message
        except grpc.RpcError as error:
            raise errors.of_call(error) from None
        finally:
            running.cancel()

    async def pages(self, method: str, request: Any, field: str) -> AsyncIterator[Any]:
        """Everything of a list, page after page."""
        while True:
            page = await self.call(method, request)
            for one in getattr(page, field):
                yield one
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def upload(self, data: bytes) -> str:
        """Stores an object, and gives its digest. What is stored already is not sent again."""
        digest = blake3.digest(data)
        query = v1.QueryObjectRequest(digest=digest)
        write, _ = self._callable("ObjectService/WriteObject")
        for turn in range(8):
            there = await self.call("ObjectService/QueryObject", query)
            if there.complete:
                return digest
            messages = _pieces(digest, data, there.committed_size)
            try:
                await write(bridge.feed(messages), metadata=self._metadata)
                return digest
            except grpc.RpcError as error:
                failed = errors.of_call(error)
            if turn == 7 or not isinstance(
                failed, (errors.Aborted, errors.Unavailable, errors.TooMany)
            ):
                raise failed
            await bridge.sleep(self._pause(failed, "ObjectService/QueryObject", turn) or 0.2)
        return digest


def _pieces(digest: str, data: bytes, start: int) -> Any:
    places = range(start, len(data), PIECE) or (start,)
    for n, at in enumerate(places):
        first: dict[str, Any] = {"digest": digest, "size": len(data)} if n == 0 else {}
        yield v1.WriteObjectRequest(offset=at, data=data[at : at + PIECE], **first)
