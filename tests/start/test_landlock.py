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
from start.playing import LIMITS, PYTHON, Played, has_zygote, in_time, own_cache, script, slots_counted, starts

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


READS = """
import os
HERE = os.path.dirname(os.path.abspath(__file__))
READ = {}
for name in ("named", "server/later", "server/tokens", "other/secret"):
    try:
        READ[name] = open(os.path.join(HERE, "..", name)).read()
    except OSError as error:
        READ[name] = type(error).__name__
"""


@pytest.mark.parametrize("warm", [0, 1])
async def test_what_is_made_or_replaced_later_is_reached_as_if_it_had_been_there(machine, pool, warm):
    folder = machine.server.parent
    confinement = Confinement(sandbox="landlock", readable=(machine.targets["readable"],))
    spec = script(machine.server, READS, warm=warm, confinement=confinement)
    pool.keep_warm([spec])
    async with Played(pool, spec, 1) as first:
        assert first.told["READ"]["server/later"] == "FileNotFoundError"
    if warm:
        await eventually(lambda: pool.statistics().placement.warm[spec.name].ready == 1, within=60)
    (machine.server / "later").write_text("made")
    (folder / "new").write_text("replaced")
    (folder / "new").rename(folder / "named")
    async with Played(pool, spec, 2) as second:
        pass
    expected = {"named": "replaced", "server/later": "made", "server/tokens": "PermissionError"}
    assert {name: second.told["READ"][name] for name in expected} == expected


async def test_a_secret_that_is_a_link_is_kept_wherever_it_leads_by_now(machine):
    for number in "12":
        (machine.server / number).write_text("secret")
    machine.tokens.unlink()
    machine.tokens.symlink_to("1")
    spec = script(machine.server, READS, confinement=Confinement(sandbox="landlock"), zygote=False)
    async with some_pool(machine.tokens) as pool:
        for number in "12":
            machine.tokens.unlink()
            machine.tokens.symlink_to(number)
            async with Played(pool, spec, 1) as played:
                assert played.told["READ"]["server/tokens"] == "PermissionError"


async def test_sessions_of_another_muxsim_are_out_of_reach_where_their_folder_is_readable(machine, monkeypatch):
    temporary = machine.server.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    victim = EnvSpec(name="victim", command="sh", args=("-c", VICTIM), limits=LIMITS)
    async with some_pool() as other, Played(other, victim, 1) as there:
        secret = there.backend.workspace / "secret"
        secret.write_text("theirs")
        (temporary / "shown").write_text("shown")
        text = f"OTHER = open({str(temporary / 'shown')!r}).read()\ntry: OTHER = open({str(secret)!r}).read()\n"
        text += "except OSError: pass\n"
        confinement = Confinement(sandbox="landlock", readable=(str(temporary),))
        spec = script(machine.server, text, confinement=confinement, zygote=False)
        async with some_pool() as pool, Played(pool, spec, 1) as played:
            assert played.told["OTHER"] == "shown"
