"""What differs between the two clients beyond the words async and await: written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import grpc
import grpc.aio

from ..settings import Settings, socket_path

T = TypeVar("T")

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.max_send_message_length", 8 << 20),
    # The command line takes no proxy either: a coordinator is a machine of one's own.
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]

def options(settings: Settings) -> list[tuple[str, Any]]:
    """The options of a channel."""
    if settings.are_several:
        return [
            *OPTIONS,
            # As which all of them are called, and for which their certificates vouch.
            ("grpc.default_authority", settings.target.split(",")[0]),
            # One of them takes over: who asks again after two minutes finds that late.
            ("grpc.initial_reconnect_backoff_ms", 300),
            ("grpc.min_reconnect_backoff_ms", 3_000),
            ("grpc.max_reconnect_backoff_ms", 3_000),
        ]
    if socket_path(settings.server or "") is None:
        return OPTIONS
    return [
        *OPTIONS,
        # gRPC names a socket by its path, which HTTP/2 servers in Rust do not take for a host.
        ("grpc.default_authority", "localhost"),
        # A server of one's own stays as long as somebody is connected: also by what is not used.
        ("grpc.client_idle_timeout_ms", 2**31 - 1),
    ]


def open_channel(settings: Settings) -> Any:
    """A channel to a coordinator."""
    if not settings.is_secure:
        return grpc.aio.insecure_channel(settings.places(), options=options(settings))
    credentials = grpc.ssl_channel_credentials(*settings.tls())
    return grpc.aio.secure_channel(settings.places(), credentials, options=options(settings))


async def sleep(seconds: float) -> None:
    """Waits."""
    await asyncio.sleep(seconds)


async def aside(act: Callable[..., T], *arguments: Any) -> T:
    """Does what waits where it holds up nobody."""
    return await asyncio.to_thread(act, *arguments)


async def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Runs a program: its status, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")


def feed(messages: Iterable[Any]) -> Any:
    """Messages as a call that takes a stream wants them."""

    async def give() -> Any:
        for message in messages:
            yield message

    return give()
