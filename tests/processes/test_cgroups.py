"""cgroup v2 on a kernel of paper, which keeps the real one's rules; then as much of the real one as there is."""

import errno
import os
import posixpath
import signal

import pytest

from muxsim.processes.cgroups import Cgroup, CgroupError, CgroupFiles, Cgroups, folder_of, own_group, own_path, pairs
from muxsim.processes.owner import Owner, new_name, new_token, owner_of
from processes.owners import token_of

ROOT = "/sys/fs/cgroup"
OWN = f"{ROOT}/user/muxsim.scope"
MOUNT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
CONTROL = ("cgroup.controllers", "cgroup.subtree_control", "cgroup.procs", "cgroup.events", "cgroup.kill")


class PaperKernel(CgroupFiles):
    """Groups by folder: their processes, what they hand out, and what else was written."""

    def __init__(self, controllers="cpu memory pids", processes=(), writable=True):
        self.offered = set(controllers.split())
        self.writable = writable
        self.groups = {OWN: {"procs": {os.getpid(), *processes}, "handed": set(), "files": {}}}
        self.killed = []

    def refuse(self, number, path):
        raise OSError(number, os.strerror(number), path)

    def offers(self, folder):
        return self.offered if folder == OWN else self.groups[posixpath.dirname(folder)]["handed"]

    def read(self, path):
        folder, name = posixpath.split(path)
        if path == "/proc/self/cgroup":
            return f"1:name=systemd:/x\n0::{OWN.removeprefix(ROOT)}\n"
        if path == "/proc/self/mountinfo":
            return MOUNT
        if folder not in self.groups:
            self.refuse(errno.ENOENT, path)
        group = self.groups[folder]
        if name == "cgroup.type":
            if folder == ROOT:
                self.refuse(errno.ENOENT, path)
            return "domain\n"
        if name == "cgroup.procs":
            return "".join(f"{pid}\n" for pid in group["procs"])
        if name == "cgroup.events":
            return f"populated {int(bool(group['procs']))}\nfrozen 0\n"
        words = {"cgroup.controllers": self.offers(folder), "cgroup.subtree_control": group["handed"]}
        return " ".join(words[name]) + "\n" if name in words else group["files"].get(name, "")

    def write(self, path, text):
        folder, name = posixpath.split(path)
        if folder not in self.groups:
            self.refuse(errno.ENOENT, path)
        group = self.groups[folder]
        if name == "cgroup.procs":
            if group["handed"]:
                self.refuse(errno.EBUSY, path)
            above = self.groups.get(posixpath.dirname(folder))
            if above and above["procs"] and above["handed"]:  # it has become a group of threads
                self.refuse(errno.EOPNOTSUPP, path)
            for other in self.groups.values():
                other["procs"].discard(int(text))
            group["procs"].add(int(text))
        elif name == "cgroup.subtree_control":
            self.hand_out(folder, group, text)
        elif name == "cgroup.kill":
            self.killed.append(folder)
            for below, other in self.groups.items():
                if below.startswith(folder):
                    other["procs"].clear()
        elif name.partition(".")[0] in self.offers(folder):
            group["files"][name] = text
        else:
            self.refuse(errno.ENOENT, path)

    def hand_out(self, folder, group, text):
        for word in text.split():
            if word[0] == "-":
                if any(
                    posixpath.dirname(below) == folder and word[1:] in g["handed"] for below, g in self.groups.items()
                ):
                    self.refuse(errno.EBUSY, folder)
                group["handed"].discard(word[1:])
                continue
            if word[1:] not in self.offers(folder):
                self.refuse(errno.ENOENT, folder)
            if group["procs"] and word[1:] == "memory":  # the others become controllers of threads
                self.refuse(errno.EBUSY, folder)
            group["handed"].add(word[1:])

    def make(self, folder):
        if not self.writable:
            self.refuse(errno.EACCES, folder)
        assert posixpath.dirname(folder) in self.groups
        assert folder not in self.groups
        self.groups[folder] = {"procs": set(), "handed": set(), "files": {}}

    def remove(self, folder):
        if folder not in self.groups:
            self.refuse(errno.ENOENT, folder)
        if self.groups[folder]["procs"] or self.groups_in(folder):
            self.refuse(errno.EBUSY, folder)
        del self.groups[folder]

    def groups_in(self, folder):
        return [posixpath.basename(below) for below in self.groups if posixpath.dirname(below) == folder]


# where we are


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/user.slice/a b.scope\n", "/user.slice/a b.scope"),
        ("4:memory:/x\n0::/\n", "/"),
        ("4:memory:/x\n", None),
        ("", None),
    ],
)
def test_our_path_is_the_one_of_hierarchy_zero(text, path):
    assert own_path(text) == path


@pytest.mark.parametrize(
    ("path", "mounts", "folder"),
    [
        ("/a/b", MOUNT, "/sys/fs/cgroup/a/b"),
        ("/", MOUNT, "/sys/fs/cgroup"),
        ("/", "42 30 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"),
        ("/docker/1", "1 2 0:3 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/sys/fs/cgroup"),
        ("/docker/1/x", "1 2 0:3 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/sys/fs/cgroup/x"),
        ("/docker/12", "1 2 0:3 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", None),
        ("/a", "1 2 0:3 / /odd\\040place rw - cgroup2 cgroup rw\n", "/odd place/a"),
        ("/a", "1 2 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", None),
        ("/../above", MOUNT.replace(" / ", " /ns ", 1), None),
        ("/a", "", None),
    ],
)
def test_our_folder_is_where_a_mount_shows_our_path(path, mounts, folder):
    assert folder_of(path, mounts) == folder


def test_a_control_file_is_read_by_its_keys():
    assert pairs("populated 1\nfrozen 0\n") == {"populated": "1", "frozen": "0"}
    assert pairs("") == {}


# groups on paper


def test_without_controllers_nobody_has_to_move():
    kernel = PaperKernel(controllers="")
    groups = Cgroups.open([], kernel)
    group = groups.group({})
    assert group.folder.startswith(f"{OWN}/muxsim-{os.getpid()}-")
    assert kernel.groups[OWN]["procs"] == {os.getpid()}
    assert groups.give_back(group)
    groups.close()
    assert list(kernel.groups) == [OWN]


@pytest.mark.parametrize("wanted", [{"memory.max": "1000", "pids.max": "5"}, {"pids.max": "5"}, {"cpu.max": "1 2"}])
def test_muxsim_steps_aside_for_the_controllers_and_comes_back(wanted):
    kernel = PaperKernel()
    controllers = {name.partition(".")[0] for name in wanted}
    groups = Cgroups.open(controllers, kernel)
    assert groups.controllers == controllers
    assert kernel.groups[OWN]["procs"] == set()
    group = groups.group(wanted)
    assert kernel.groups[group.folder]["files"] == wanted
    kernel.write(f"{group.folder}/cgroup.procs", "9")
    kernel.groups[group.folder]["procs"].clear()
    groups.give_back(group)
    groups.close()
    assert kernel.groups == {OWN: {"procs": {os.getpid()}, "handed": set(), "files": {}}}


def test_where_the_controllers_are_handed_out_already_muxsim_changes_nothing_above():
    kernel = PaperKernel()
    kernel.groups[OWN].update(procs=set(), handed={"memory", "io"})  # as in the root of all, which may do both
    groups = Cgroups.open(["memory"], kernel)
    groups.close()
    assert kernel.groups == {OWN: {"procs": set(), "handed": {"memory", "io"}, "files": {}}}


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (PaperKernel(controllers="cpu"), "offers no controller memory"),
        (PaperKernel(processes=[5]), "other processes live in it"),
        (PaperKernel(writable=False), "Delegate=yes"),
    ],
)
def test_groups_that_cannot_be_had_say_why_and_leave_nothing(kernel, words):
    before = set(kernel.groups[OWN]["procs"])
    with pytest.raises(CgroupError, match=words):
        Cgroups.open(["memory"], kernel)
    assert kernel.groups == {OWN: {"procs": before, "handed": set(), "files": {}}}


def test_a_group_that_cannot_be_bounded_is_not_kept():
    kernel = PaperKernel()
    groups = Cgroups.open(["memory"], kernel)
    with pytest.raises(CgroupError, match=r"cpu\.max"):
        groups.group({"memory.max": "1", "cpu.max": "1 2"})
    groups.close()
    assert list(kernel.groups) == [OWN]


def test_a_group_that_is_not_empty_yet_is_removed_later():
    kernel = PaperKernel()
    groups = Cgroups.open([], kernel)
    group = groups.group({})
    kernel.groups[group.folder]["procs"].add(9)
    assert group.is_populated()
    assert not groups.give_back(group)
    kernel.groups[group.folder]["procs"].clear()
    assert not group.is_populated()
    groups.close()
    assert list(kernel.groups) == [OWN]


def test_a_group_tells_whether_it_ran_out_of_memory():
    kernel = PaperKernel()
    groups = Cgroups.open(["memory"], kernel)
    group = groups.group({"memory.max": "1"})
    kernel.groups[group.folder]["files"]["memory.events"] = "low 0\nmax 4\noom 1\noom_kill 0\n"
    assert not group.out_of_memory()
    kernel.groups[group.folder]["files"]["memory.events"] = "low 0\nmax 4\noom 1\noom_kill 2\n"
    assert group.out_of_memory()


def test_a_group_that_is_gone_is_empty_and_removed():
    group = Cgroup(f"{OWN}/none", PaperKernel())
    group.kill()
    assert not group.is_populated()
    assert not group.out_of_memory()
    assert group.remove()


def test_what_a_killed_muxsim_left_is_ended_and_what_lives_is_spared():
    kernel = PaperKernel()
    me = owner_of(new_token())
    dead, again, elsewhere = (
        f"muxsim-{token_of(owner)}"
        for owner in (
            Owner(2**22 + 1, me.started, me.namespace),
            Owner(me.pid, me.started - 1, me.namespace),
            Owner(2**22 + 1, me.started, me.namespace + 1),
        )
    )
    spared = {new_name(), elsewhere, dead[:-1], f"muxsim-{me.pid}-x-40-00000000", "muxsim", "other"}
    for name in (dead, f"{dead}/1", again, *sorted(spared)):
        kernel.make(f"{OWN}/{name}")
    kernel.groups[f"{OWN}/{dead}/1"]["procs"].add(99)
    Cgroups.open([], kernel).close()
    assert kernel.killed == [f"{OWN}/{dead}", f"{OWN}/{again}"]
    assert set(kernel.groups_in(OWN)) == spared


# the real kernel


def why_no_groups():
    try:
        Cgroups.open([]).close()
    except CgroupError as error:
        return str(error)
    return ""


WHY_NOT = why_no_groups()


@pytest.mark.skipif(bool(WHY_NOT), reason=f"no cgroup can be made here: {WHY_NOT}")
@pytest.mark.children
def test_a_real_group_ends_whoever_is_in_it():
    own = own_group(CgroupFiles())
    groups = Cgroups.open([])
    group = groups.group({})
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        CgroupFiles().write(f"{group.folder}/cgroup.procs", "0")
        os.write(tell, b".")
        os.setsid()
        signal.pause()
        os._exit(0)
    assert os.read(told, 1) == b"."
    assert group.is_populated()
    assert not groups.give_back(group)
    group.kill()
    assert os.waitpid(pid, 0)[1] == 9
    assert not group.is_populated()
    os.close(told)
    os.close(tell)
    groups.close()
    assert not [name for name in CgroupFiles().groups_in(own) if name.startswith(f"muxsim-{os.getpid()}-")]
