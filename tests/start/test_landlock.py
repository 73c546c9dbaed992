"""What a hostile backend under Landlock can do: its own, and nothing else, however it was started."""

import json
import os
import shutil
import socket
from dataclasses import replace

import pytest
from harness import SERVERS
from serve.machine import eventually

from muxsim.admission.pool import capacity_of, open_pool
from muxsim.config import ServerSettings
from muxsim.errors import StartError
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.observe.log import LibraryLog
from muxsim.processes.reach import why_not
from muxsim.spec import Confinement, EnvSpec
from start.playing import LIMITS, PYTHON, Played, has_zygote, in_time, own_cache, slots_counted, starts

__all__ = ["in_time", "own_cache"]

pytestmark = [
    pytest.mark.children,
    pytest.mark.skipif(why_not() is not None, reason=f"no Landlock that would do: {why_not()}"),
]

MAY = {"read code", "read system", "null", "named readable", "named writable"}


class Machine:
    """What there is to attack."""

    def __init__(self, folder, sockets):
        self.home = folder / "home"
        self.server = folder / "server"
        (self.home / ".ssh").mkdir(parents=True)
        shutil.copytree(SERVERS / "hostile", self.server)
        (self.server / "package.json").write_text('{"type": "commonjs"}')
        self.tokens = self.server / "tokens"
        for secret in (self.home / ".ssh" / "id", self.tokens, folder / "named"):
            secret.write_text("secret")
        (folder / "data").mkdir()
        self.targets = {
            "ssh": str(self.home / ".ssh" / "id"),
            "home": str(self.home),
            "tokens": str(self.tokens),
            "readable": str(folder / "named"),
            "writable": str(folder / "data" / "a"),
            "pid": os.getpid(),
            **sockets,
        }

    def spec(self, *command, workspace, **fields):
        own = {
            "sandbox": "landlock",
            "readable": (self.targets["readable"],),
            "writable": (os.path.dirname(self.targets["writable"]),),
        }
        confinement = Confinement(**{**own, **fields.pop("confinement", {})})
        targets = json.dumps({**self.targets, "workspace": str(workspace)})
        fields = {"limits": LIMITS, "cwd": "{workspace}", **fields}
        return EnvSpec(
            name="hostile",
            command=command[0],
            args=(*command[1:-1], str(self.server / command[-1])),
            env={"TARGETS": targets},
            confinement=confinement,
            **fields,
        )


@pytest.fixture
def machine(tmp_path, monkeypatch):
    path = str(tmp_path / "socket")
    abstract = f"muxsim-hostile-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as unnamed,
    ):
        udp.bind(("127.0.0.1", 0))
        named.bind(path)
        unnamed.bind("\0" + abstract)
        named.listen()
        unnamed.listen()
        sockets = {"tcp": tcp.getsockname(), "udp": udp.getsockname(), "unix": path, "abstract": abstract}
        found = Machine(tmp_path, sockets)
        monkeypatch.setenv("HOME", str(found.home))
        yield found


def some_pool(*hidden):
    capacity = capacity_of(ServerSettings(opens_per_second=1000))
    return open_pool(capacity, events=Events(Counters(), LibraryLog()), hidden=map(str, hidden))


@pytest.fixture
async def pool(machine):
    async with some_pool(machine.tokens) as pool:
        yield pool


@pytest.fixture
async def victim(pool):
    """Another session, with a folder of its own."""
    async with Played(pool, EnvSpec(name="victim", command="sh", args=("-c", VICTIM), limits=LIMITS), 1) as played:
        yield played.backend.workspace


VICTIM = """echo '{"jsonrpc": "2.0", "method": "told", "params": {}}'; cat"""


def done(told):
    return {name for name, came in told.items() if came == "done"}


def holds(told, *more):
    """Nothing was done but what it may do, and ``more``; and that all was."""
    assert done(told) == {name for name in told if name.startswith("own ") or name in MAY or name in more}
    refused = {came for came in told.values() if came != "done"}
    assert refused <= {"EACCES", "EPERM", "EXDEV", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"}


async def test_a_fresh_backend_and_a_fork_reach_nothing_but_their_own(machine, pool, victim):
    spec = machine.spec(PYTHON, "hostile.py", workspace=victim)
    async with Played(pool, spec, 1) as first:
        await has_zygote(pool)
    async with Played(pool, spec, 2) as second:
        pass
    async with Played(pool, replace(spec, name="fresh", zygote=False), 2) as fresh:
        pass
    assert (starts(pool, "learner"), starts(pool, "fork")) == (1, 1)
    for played in (first, second, fresh):
        holds(played.told["told"])
    for played in (second, fresh):
        assert "NoNewPrivs:\t1" in played.told["status"]
        capabilities = int(played.told["status"].partition("CapEff:\t")[2].split()[0], 16)
        assert capabilities in (0, 1 << 1)


async def test_a_node_that_waits_is_behind_the_walls_before_it_loads_anything(machine, pool, victim):
    spec = machine.spec("node", "hostile.cjs", workspace=victim, warm=1)
    pool.keep_warm([spec])
    await eventually(lambda: pool.statistics().placement.warm["hostile"].ready == 1, within=60)
    async with Played(pool, spec, 1) as played:
        pass
    assert slots_counted(pool, spec, "used") == 1
    holds(played.told["told"])


async def told_by(pool, spec):
    async with Played(pool, replace(spec, zygote=False), 1) as played:
        return played.told["told"]


async def test_a_network_is_that_of_the_internet_and_no_socket_of_another_process(machine, pool, victim):
    spec = machine.spec(PYTHON, "hostile.py", workspace=victim, confinement={"network": True})
    holds(await told_by(pool, spec), "tcp", "udp", "bind", "netlink")


async def test_of_a_list_of_ports_those_can_be_connected_to_and_nothing_else(machine, pool, victim):
    port = machine.targets["tcp"][1]
    spec = machine.spec(PYTHON, "hostile.py", workspace=victim, confinement={"network": (port,)})
    holds(await told_by(pool, spec), "tcp", "netlink")
    other = {"network": (port % 65535 + 1,)}
    holds(await told_by(pool, machine.spec(PYTHON, "hostile.py", workspace=victim, confinement=other)), "netlink")


async def test_who_may_read_proc_sees_no_memory_and_no_variables_of_others(machine, pool, victim):
    readable = {"readable": (machine.targets["readable"], "/proc")}
    spec = machine.spec(PYTHON, "hostile.py", workspace=victim, confinement=readable)
    holds(await told_by(pool, spec), "proc cmdline")


async def test_a_private_folder_may_be_written_to_and_is_as_it_was_for_others(machine, pool, victim):
    spec = replace(machine.spec(PYTHON, "hostile.py", workspace=victim), private=(str(machine.server),))
    before = sorted(path.name for path in machine.server.iterdir())
    with pytest.raises(StartError, match=r"private: .*/tokens in it"):
        await told_by(pool, spec)
    async with some_pool() as careless:
        async with Played(careless, spec, 1) as first:
            await has_zygote(careless)
        async with Played(careless, spec, 2) as second:
            pass
        assert starts(careless, "fork") == 1
    told = second.told["told"]
    assert told == first.told["told"]
    assert done(told) >= {"write beside its code", "write its code", "own workspace", "read code"}
    assert told["read ssh"] == told["write home"] == told["tcp"] == "EACCES"
    assert sorted(path.name for path in machine.server.iterdir()) == before
