"""One session on our own stdin and stdout, as a Claude-desktop-style client starts it. Plain trio."""

from __future__ import annotations

import signal
from typing import Final

import trio

from muxsim.admission.admission import Capacity
from muxsim.admission.pool import open_pool
from muxsim.config import Config
from muxsim.observe.events import FAILURES, Events
from muxsim.observe.tracing import tracing
from muxsim.session.attachment import Attachment
from muxsim.session.registry import open_sessions
from muxsim.session.session import Session
from transports.pipe import PipeTransport
from transports.stdio import claim_stdio

# A client that has closed its end of our stdin may still want the answers to what it sent, as in `printf … | muxsim`.
_LAST_ANSWERS: Final = 2.0


def serve_stdio(config: Config, env: str, seed: int | None, events: Events) -> bool:
    """Serve one session until the client closes stdin; False if the session failed before.

    Raises `StartError` if the backend cannot be started.
    """
    with tracing(config.server.tracing, events):
        return trio.run(_serve, config, env, seed, events)


async def _serve(config: Config, env: str, seed: int | None, events: Events) -> bool:
    async with (
        open_pool(
            Capacity(max_sessions=1, max_pending=0, queue_timeout=0, max_starting=1),
            specs=[config.environment(env)],
            cgroup=config.server.cgroup,
            events=events,
            hidden=config.secrets,
        ) as pool,
        open_sessions(pool, config.environments, events) as sessions,
    ):
        session = await sessions.open(env, seed=seed)
        client = _StdioClient(session)
        with claim_stdio(client) as transport:
            client.connect(transport)
            session.attach(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_on_signal, session)
                nursery.start_soon(transport.run)
                nursery.start_soon(_end_with_client, session, client, transport)
                await session.wait_ended()
                with trio.move_on_after(_LAST_ANSWERS):
                    await transport.wait_sent()
                nursery.cancel_scope.cancel()
    return session.ending is not None and session.ending.cause not in FAILURES


class _StdioClient(Attachment):
    """The only client there will be."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "stdio", ends_session=True)
        self.gone = trio.Event()

    def disconnected(self) -> None:
        """The client has closed its end of our stdin."""
        self.gone.set()


async def _end_with_client(session: Session, client: _StdioClient, transport: PipeTransport) -> None:
    await client.gone.wait()
    with trio.move_on_after(_LAST_ANSWERS):
        while session.busy and transport.is_read():  # noqa: ASYNC110 - short, once
            await trio.sleep(0.02)
    session.detach(client)


async def _end_on_signal(session: Session) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            session.end("shutdown", "muxsim is shutting down")
