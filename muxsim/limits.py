"""Every bound of muxsim in one table, and what happens past it. docs/limits.md is made from it.

A bound is a setting of `muxsim.config.ServerSettings`, `muxsim.spec.Limits` or `Confinement`, and its counter
(`muxsim.observe.counters`) has the setting's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CONNECTIONS: Final[Mapping[str, str]] = {
    "max_connections": "one more connection is answered 503 and closed",
    "max_connections_per_peer": "one more connection from the same address is answered 503 and closed",
    "header_timeout": "408, and the connection is closed; one that has sent nothing is only closed",
    "max_url": "414, and the connection is closed",
    "max_headers": "431, and the connection is closed",
    "max_header_bytes": "431, and the connection is closed",
    "max_failures": "until the minute is over, 429 for one more wrong token from the same address; one more unknown "
    "session gets its 404 a second later, and its connection is closed",
    "max_body": "413 as soon as it is known, and the connection is closed; a WebSocket is closed with 1009",
    "body_timeout": "408, and the connection is closed; a WebSocket is closed with 1008",
    "max_unfinished": "of the client's bodies and texts on WebSockets of more than 64 KiB only the oldest is read on, "
    "until it is complete, and none while as much waits for backends; what has no room for body_timeout gets 503, and "
    "a WebSocket is closed with 1013",
    "max_buffered": "the session's backend is not read on until the client has caught up; nothing is dropped. "
    "Of a shared session the client is cut, after 2 s or 8 MiB more",
    "max_unread": "no backend of the client's sessions is read on until it has caught up; on a shared session its "
    "connection is cut",
    "stall_timeout": "the connection is cut; the client of an event stream may come back with Last-Event-ID",
}
"""Of connections and requests, in the order in which a request meets them."""

OPENS: Final[Mapping[str, str]] = {
    "opens_per_second": "429 for one more session that the client asks for",
    "max_sessions_per_client": "429 for one more session that the client asks for",
    "max_failed_starts": "503 for the environment until failed_start_window is over, then one start is tried",
    "memory_limit": "503 for one more session",
    "max_sessions": "one more session has to wait; environments and clients take turns",
    "max_starting": "one more session has to wait; environments and clients take turns; a start that waits for its "
    "client to speak counts for that client only, and a fork that does for nobody",
    "max_pending": "503 for the last of the environment and client that has most waiting",
    "queue_timeout": "503 for a session that has waited so long",
}
"""Of sessions that are asked for, in the order in which an open meets them."""

SERVER: Final[Mapping[str, str]] = {
    "spare_idle": "past memory_limit, sessions idle for so long are ended, the longest idle first",
    "log_buffer": "lines are left out; the log says how many",
    "drain_timeout": "at shutdown, calls still in flight get an error and their sessions are ended",
}
"""Of muxsim as a whole."""

SESSIONS: Final[Mapping[str, str]] = {
    "handshake_timeout": "the session ends",
    "start_timeout": "the session ends, and the handshake gets an error",
    "call_timeout": "the call gets error -32001, and the backend a cancellation",
    "max_in_flight": "error -32003 for one more request, of a client or of the backend",
    "max_attachments": "503 for one more client of the session",
    "max_waiting": "503 for one more message",
    "idle_timeout": "the session ends",
    "quiet_timeout": "the session ends, and its clients' streams",
    "ttl": "the session ends, and calls in flight get an error",
    "max_line": "the session ends, and calls in flight get an error that names the limit",
}
"""Of one session and its backend."""


PROCESSES: Final[Mapping[str, str]] = {
    "max_memory": "all processes of the session are killed, and calls in flight get an error that names the limit",
    "max_cpu_seconds": "the backend is killed, and calls in flight get an error that names the limit",
    "max_file_size": "a backend that does not ignore SIGXFSZ, as Python does, is killed, and calls get such an error",
}
"""Of a session's processes, as far as the kernel ends them; others it refuses what they ask for."""
