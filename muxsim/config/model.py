"""What a config says: what is served, how, and to whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from muxsim.access import AuthSettings, ClientBounds
from muxsim.config.table import shown
from muxsim.errors import UnknownEnvironment
from muxsim.spec import CgroupMode, EnvSpec
from muxsim.values import SERVER_KEYS, check_numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How muxsim itself serves: the `[server]` table. Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    """The address to listen on."""

    port: int = 8000
    """The port to listen on; 0 takes a free one."""

    unix: str = ""
    """A unix socket to listen on, in place of ``host`` and ``port``."""

    unix_mode: str = "0600"
    """The mode of that socket's file: who may connect, such as ``"0660"`` for its group too."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks, or ``unix``, whose ``X-Forwarded-For`` is believed: bounds of an address go by that."""

    public_url: str = ""
    """Where clients find muxsim behind a proxy: scheme, host, and the path it is served under, if any."""

    allowed_hosts: tuple[str, ...] = ()
    """Values of the Host header to accept beside the loopback names: ``name`` (any port) or ``name:port``."""

    allowed_origins: tuple[str, ...] = ()
    """Origins of browser pages to accept beside muxsim's own: ``https://name`` or ``http://name:port``."""

    tls_cert: str = ""
    """A file with the certificate and its chain (PEM): with it, everything is served over TLS."""

    tls_key: str = ""
    """The file with the certificate's private key (PEM, without a password); the certificate's own if left out."""

    max_failures: int = 1000
    """How many requests with a wrong token, and how many for unknown sessions, an address may send in a minute."""

    max_sessions: int = 256
    """How many sessions may be open at once."""

    max_pending: int = 64
    """How many more may wait for a place; past these a session is refused at once."""

    queue_timeout: float = 60.0
    """How long one may wait for a place, and for its turn to start, before it is refused."""

    max_starting: int = 0
    """How many backends may be starting at once, until their first answer; 0 means four for each processor."""

    max_sessions_per_client: int = 0
    """How many sessions one client (a token's name, else an address) may have open or asked for; 0 sets no bound."""

    opens_per_second: float = 200.0
    """How many sessions one client may ask for per second in the long run; 0 sets no bound."""

    opens_burst: int = 1000
    """How many of those may come at once."""

    memory_limit: int | str | None = "90%"
    """How much memory may be in use before no more sessions start: a share of the machine, or of the cgroup that limits
    muxsim, or a size for muxsim and its environments. `"never"` looks at none."""

    spare_idle: float | None = 300.0
    """Past `memory_limit`, after how long without a call or a message a session is ended, the longest idle first;
    `"never"` ends none."""

    max_body: int = 64 * 2**20
    """The largest request body."""

    body_timeout: float = 30.0
    """How long a request's body may take to arrive."""

    header_timeout: float = 10.0
    """How long a request's headers may take to arrive, from the connection or the first byte on."""

    max_header_bytes: int = 32 * 2**10
    """The largest total size of a request's headers."""

    max_headers: int = 100
    """How many headers a request may have."""

    max_url: int = 8 * 2**10
    """The longest request target: path and query."""

    max_connections: int = 8192
    """How many connections may be open at once."""

    max_connections_per_peer: int = 4096
    """How many of them may come from one address."""

    stream_silence: float = 3.0
    """After how much silence a call's answer becomes an event stream, on which pings can keep it alive."""

    ping_interval: float = 15.0
    """Between two pings on an event stream that has nothing else to carry."""

    stall_timeout: float = 60.0
    """How long a client may read nothing of an event stream or an answer before its connection is cut."""

    max_buffered: int = 2**20
    """How many bytes may wait for one client before its session's backend has to wait too."""

    max_unread: int = 64 * 2**20
    """How many bytes of answers one client (a token's name, else an address) may leave unread, on all connections."""

    max_unfinished: int = 128 * 2**20
    """How many bytes that one client has sent may be kept: of bodies that are not complete, and of messages that wait
    for backends that do not read."""

    log_buffer: int = 2**20
    """How many bytes of log may wait for a reader of stderr that does not keep up."""

    access_log: bool = False
    """Whether the log has a line for each HTTP request."""

    tracing: bool = False
    """Whether spans go to OpenTelemetry, as the `OTEL_…` variables say; needs the extra `otel`."""

    log_kept: int = 2 * 2**20
    """How many bytes of the newest lines are kept for `muxsim logs`."""

    history: int = 0
    """How many of its last calls are kept of each session for the dashboard, of ended ones too; up to 1 MiB each."""

    drain_timeout: float = 0.3
    """How long calls may still take to finish at shutdown, before their sessions are ended."""

    cgroup: CgroupMode = "auto"
    """Groups of cgroup v2: ``auto`` for environments bounded by what needs one, ``required`` for all or no start."""

    operator_socket: Literal["auto", "required", "off"] = "auto"
    """The socket of `muxsim ctl`: ``auto`` serves without where none can be had, ``required`` does not start then."""

    metrics: bool = True
    """Whether `GET /metrics` answers Prometheus, and calls are counted for it."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """``console``, ``json``, or ``auto``: console on a terminal, JSON elsewhere."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged: ``debug``, ``info``, ``warning`` or ``error``."""

    def __post_init__(self) -> None:
        check_numbers(self, SERVER_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is served, how, and to whom."""

    environments: Mapping[str, EnvSpec]
    """By name, in the file's order; at least one."""

    server: ServerSettings = field(default_factory=ServerSettings)

    auth: AuthSettings | None = None
    """Who may call; None for everybody on this machine."""

    clients: Mapping[str, ClientBounds] = field(default_factory=dict)
    """Bounds of single clients, by the name of a principal, or an address."""

    default: str | None = None
    """The environment for those who name none; None when there are several and the config chooses none."""

    file: Path | None = None
    """Where it was read; None for a command line."""

    notes: tuple[str, ...] = field(default=(), compare=False)
    """What its reader should be told: what was passed over in the file of another program, a line each."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Files that no environment has any business with: of tokens, of the server's key, and the config itself."""
        named = (self.auth.tokens_file if self.auth else "", self.server.tls_key, self.file)
        return tuple(str(Path(file).absolute()) for file in named if file)

    def environment(self, name: str | None = None) -> EnvSpec:
        """The environment of that name, or the default one. Raises UnknownEnvironment, which lists the names."""
        known = ", ".join(self.environments)
        if name is None:
            name = self.default
        if name is None:
            raise UnknownEnvironment(f"name an environment: there is no default, and these are served: {known}")
        if name not in self.environments:
            raise UnknownEnvironment(f"no environment is called {shown(name)}: these are served: {known}")
        return self.environments[name]
