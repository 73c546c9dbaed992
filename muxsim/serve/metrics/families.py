"""Every metric of `/metrics`: its name, its labels, what it says, and where its values are taken from at a scrape.

The counts are those of `muxsim.observe`; what is so now is looked up here. docs/metrics.md is made of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from muxsim import __version__
from muxsim.admission.pool import Pool
from muxsim.observe.counters import COUNTERS, Counters
from muxsim.observe.distribution import Distribution
from muxsim.observe.durations import INSTALL, START, WAIT, Durations
from muxsim.observe.traffic import Traffics
from muxsim.session.registry import Sessions
from muxsim.session.sampler import Sampler
from muxsim.session.states import State

PREFIX: Final = "muxsim_"
ENV: Final = "env"
LAG_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""The bounds by which the event loop's lag is counted."""

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]


class Family(NamedTuple):
    """One metric: ``name`` is its whole one but for the ``_total`` of a counter."""

    name: str
    kind: Kind
    labels: Labels
    help: str


class Measured(NamedTuple):
    """A metric and its values by their labels, which for a histogram are distributions."""

    family: Family
    values: Mapping[Labels, float | Distribution]


@dataclass(frozen=True)
class Sources:
    """Where the values come from."""

    sessions: Sessions
    pool: Pool
    sampler: Sampler
    counters: Counters
    durations: Durations
    traffics: Traffics
    lag: Distribution


def _family(name: str, kind: Kind, help: str, *labels: str) -> Family:
    return Family(PREFIX + name, kind, labels, help)


_COUNTED: Final = {name: _family(name, "counter", one.help, *one.labels) for name, one in COUNTERS.items()}
_LIMITS: Final = _family("limits_met", "counter", "Times that a bound was met, by its setting.", "limit")
_BYTES: Final = _family(
    "call_bytes", "counter", "Bytes of requests that backends have answered, and of their answers.", ENV, "method", "of"
)
_ERRORS: Final = _family(
    "call_errors",
    "counter",
    "Errors that clients were answered: a backend's own (backend), or muxsim's in its stead, by kind.",
    ENV,
    "kind",
)
_STDERR: Final = _family("backend_stderr_bytes", "counter", "Bytes that backends have written on stderr.", ENV)
_CPU: Final = _family(
    "backend_cpu_seconds", "counter", "CPU time of backends and what they started, as far as it was sampled.", ENV
)
_CALLS: Final = _family(
    "call_seconds", "histogram", "From a request's way to its backend to the backend's answer.", ENV, "method"
)
_STARTS: Final = _family(
    START, "histogram", "What backends took until their first answer, without waiting for clients.", ENV, "way"
)
_WAITS: Final = _family(WAIT, "histogram", "How long opens waited that had to, those in vain included.", ENV)
_INSTALLS: Final = _family(INSTALL, "histogram", "How long installs took.", ENV)
_LAG: Final = _family(
    "event_loop_lag_seconds", "histogram", "How much later than asked for the event loop woke up, ten times a second."
)
_SESSIONS: Final = _family("sessions", "gauge", "Sessions there are.", ENV, "state")
_IN_FLIGHT: Final = _family("calls_in_flight", "gauge", "Requests that wait for their answer.", ENV)
_STARTING: Final = _family("sessions_starting", "gauge", "Sessions whose backend has not answered anything yet.", ENV)
_QUEUE: Final = _family("queue_length", "gauge", "Opens that wait for their turn.", ENV)
_HELD: Final = _family("leases", "gauge", "Places taken: of sessions, of those that start, and of those just over.")
_MOST: Final = _family("sessions_max", "gauge", "As many there may be: max_sessions.")
_BREAKERS: Final = _family("breaker_open", "gauge", "1: starts of the environment fail, and none is tried now.", ENV)
_DRAINING: Final = _family("draining", "gauge", "1: no new session is taken.")
_PROCESSES: Final = _family("processes", "gauge", "Processes that muxsim has started and that live.", "kind")
_SLOTS: Final = _family("slots", "gauge", "Processes that are kept ready, and are to be.", ENV, "state")
_MEMORY: Final = _family(
    "backend_memory_bytes", "gauge", "Memory of backends and what they started, shared pages counted once.", ENV
)
_TREES: Final = _family("backend_processes", "gauge", "Processes of sessions, as of the last sample.", ENV)
_INFO: Final = _family("build_info", "gauge", "1, with the version.", "version")

FAMILIES: Final = (
    *(_SESSIONS, _HELD, _MOST, _STARTING, *(_COUNTED[name] for name in COUNTERS), _LIMITS, _QUEUE, _WAITS, _STARTS),
    *(_IN_FLIGHT, _CALLS, _BYTES, _ERRORS, _STDERR, _MEMORY, _CPU, _TREES, _SLOTS, _BREAKERS, _INSTALLS),
    *(_PROCESSES, _DRAINING, _LAG, _INFO),
)
"""All of muxsim's own, in the order in which docs/metrics.md has them."""


def measure(sources: Sources) -> list[Measured]:
    """Every metric as it is now, of the environments that are served, or still have sessions."""
    sessions = sources.sessions.all()
    known = dict.fromkeys([spec.name for spec in sources.sessions.specs()])
    known.update(dict.fromkeys(session.spec.name for session in sessions))
    values = {family: dict(found) for family, found in _all_values(sources, list(known))}
    return [Measured(family, _of_known(family, values.get(family, {}), known)) for family in FAMILIES]


def _of_known(
    family: Family, values: Mapping[Labels, float | Distribution], known: Mapping[str, None]
) -> Mapping[Labels, float | Distribution]:
    """Without the environments that are no more: each would be kept for ever, and there may always be others."""
    if ENV not in family.labels:
        return values
    at = family.labels.index(ENV)
    return {labels: value for labels, value in values.items() if labels[at] in known}


_Values = Iterable[tuple[Labels, float | Distribution]]


def _all_values(sources: Sources, envs: list[str]) -> Iterator[tuple[Family, _Values]]:
    yield from _counted(sources, envs)
    yield from _timed(sources)
    yield from _said(sources.traffics)
    yield from _live(sources, envs)
    yield from _pooled(sources, envs)
    yield from _sampled(sources.sampler)
    yield _LAG, [((), sources.lag)]
    yield _INFO, [((__version__,), 1)]


def _counted(sources: Sources, envs: list[str]) -> Iterator[tuple[Family, _Values]]:
    for name, family in _COUNTED.items():
        # From the beginning, so that the first of each is seen as one more.
        values: dict[Labels, float] = {} if family.labels else {(): 0}
        if family.labels == (ENV,):
            values = {(env,): 0 for env in envs}
        values.update(sources.counters.by_kind(name))
        yield family, values.items()
    yield _LIMITS, (((limit,), met) for limit, met in sources.counters.limits().items())


def _timed(sources: Sources) -> Iterator[tuple[Family, _Values]]:
    for family, name in ((_STARTS, START), (_WAITS, WAIT), (_INSTALLS, INSTALL)):
        yield family, sources.durations.of(name).items()


def _said(traffics: Traffics) -> Iterator[tuple[Family, _Values]]:
    all_traffic = traffics.all()
    calls = [((env, method), one) for env, traffic in all_traffic for method, one in list(traffic.calls.items())]
    yield _CALLS, calls
    requests = [((*labels, "requests"), one.requests) for labels, one in calls]
    yield _BYTES, [*requests, *(((*labels, "answers"), one.answers) for labels, one in calls)]
    yield _ERRORS, [((env, kind), n) for env, traffic in all_traffic for kind, n in list(traffic.errors.items())]
    yield _STDERR, [((env,), traffic.stderr_bytes) for env, traffic in all_traffic]


def _live(sources: Sources, envs: list[str]) -> Iterator[tuple[Family, _Values]]:
    states = [state for state in State if state is not State.ENDED]
    live: Counter[Labels] = Counter({(env, state.value): 0 for env in envs for state in states})
    in_flight: Counter[Labels] = Counter({(env,): 0 for env in envs})
    for session in sources.sessions.all():
        live[session.spec.name, session.state.value] += 1
        in_flight[(session.spec.name,)] += session.conversation.in_flight
    yield _SESSIONS, live.items()
    yield _IN_FLIGHT, in_flight.items()
    yield _DRAINING, [((), int(sources.sessions.draining))]


def _pooled(sources: Sources, envs: list[str]) -> Iterator[tuple[Family, _Values]]:
    now = sources.pool.statistics()
    waiting, starting = sources.pool.under_way()
    yield _STARTING, [((env,), starting[env]) for env in envs]
    yield _HELD, [((), now.leases.held)]
    yield _QUEUE, [((env,), waiting[env]) for env in envs]
    yield _MOST, [((), now.leases.most)]
    yield _BREAKERS, [((env,), int(env in now.leases.breakers_open)) for env in envs]
    place = now.placement
    yield _PROCESSES, [(("backend",), place.backends), (("zygote",), place.zygotes.alive)]
    slots = place.warm.items()
    yield (
        _SLOTS,
        [((env, state), getattr(one, state)) for env, one in slots for state in ("wanted", "starting", "ready")],
    )


def _sampled(sampler: Sampler) -> Iterator[tuple[Family, _Values]]:
    used = sampler.by_environment().items()
    yield _MEMORY, [((env,), one.memory) for env, one in used if one.memory is not None]
    yield _CPU, [((env,), one.cpu) for env, one in used]
    yield _TREES, [((env,), one.processes) for env, one in used]
