"""What a program needs to read of this machine: found by following its links, its first line and its interpreter."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from muxsim import inside
from muxsim.processes.views import within
from muxsim.spec import Launch

SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/loadavg", "/proc/version"),
    *("/proc/filesystems", "/proc/sys", "/sys/devices/system/cpu", "/sys/devices/system/node"),
    *("/sys/kernel/mm/transparent_hugepage", "/etc/resolv.conf", "/etc/localtime"),
)
"""What belongs to nobody, beside what anybody may read of /etc."""

# Programs whose first argument that is a file is the one they run.
_INTERPRETER: Final = re.compile(r"(python|pypy|node|bun|deno|ruby|perl|php|java|lua|bash|dash|sh|Rscript)[0-9.]*")
_NODE: Final = re.compile(r"node|bun|deno")
# Variables that name files, or several folders.
_FILES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_FOLDERS: Final = ("PYTHONPATH", "NODE_PATH", "LD_LIBRARY_PATH")
_MOST_LINKS: Final = 40
_FIRST_LINE: Final = 512


class Needs(NamedTuple):
    """What a program needs, and of which folders that was read, with when these had changed last."""

    paths: list[str]
    watched: dict[str, float]

    def have_changed(self) -> bool:
        """Whether one of the folders has changed since."""
        return any(changed(folder) != at for folder, at in self.watched.items())


def needs_of(launch: Launch, home: str) -> Needs:
    """The files and folders that it needs, without the system's. ``home`` is the user's folder."""
    found = _Search(launch, home)
    found.program(launch.argv[0])
    found.script()
    for name in _FILES:
        found.add(launch.env.get(name, ""))
    for name in _FOLDERS:
        for folder in launch.env.get(name, "").split(os.pathsep):
            found.add(folder)
    return Needs([*found.paths, os.path.dirname(inside.BEGIN), *_library_folders()], found.watched)


def parted(path: str, hidden: Iterable[str]) -> tuple[list[str], list[str]]:
    """What to give to have all of a folder but what is hidden, which are paths without links: to read, and to list."""
    path = os.path.realpath(path)
    if any(within(path, one) for one in hidden):
        return [], []
    below = [one for one in hidden if within(one, path)]
    if not below:
        return [path], []
    read, listed = [], [path]
    with suppress(OSError):
        for entry in sorted(os.listdir(path)):
            of_entry = parted(os.path.join(path, entry), below)
            read += of_entry[0]
            listed += of_entry[1]
    return read, listed


def of_everybody(folder: str) -> Iterator[str]:
    """What is in a folder that any user may read, as few paths as say so; no link that leads out of it."""
    whole = True
    found: list[str] = []
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_symlink():
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if entry.is_dir(follow_symlinks=False) and mode & 0o5 == 0o5:
                below = list(of_everybody(entry.path))
                whole = whole and below == [entry.path]
                found += below
            elif entry.is_file(follow_symlinks=False) and mode & 0o4:
                found.append(entry.path)
            else:
                whole = False
    yield from [folder] if whole else found


class _Search:
    """What was found so far, in the order in which it was."""

    def __init__(self, launch: Launch, home: str) -> None:
        self._launch = launch
        self._home = os.path.realpath(home)
        self._seen: set[str] = set()
        self.paths: dict[str, None] = {}
        self.watched: dict[str, float] = {}

    def add(self, path: str) -> None:
        if os.path.isabs(path) and os.path.exists(path):
            self.paths[os.path.normpath(path)] = None

    def program(self, word: str) -> None:
        """A program with what it belongs to: its prefix, and what it is run by."""
        path = word if "/" in word else shutil.which(word, path=self._launch.env.get("PATH", os.defpath)) or ""
        path = os.path.join(self._launch.cwd, path)
        if not path or path in self._seen or not os.path.isfile(path):
            return
        self._seen.add(path)
        for one in _links(path):
            self.add(one)
            self._prefix_of(one)
            self._run_by(one)

    def script(self) -> None:
        """What is run by an interpreter: the script in its folder, or in its package; a module in the cwd."""
        launch, name = self._launch, os.path.basename(self._launch.argv[0])
        if not _INTERPRETER.fullmatch(name):
            return
        words = launch.argv[1:]
        if "-m" in words[:-1]:
            self._module(words[words.index("-m") + 1].partition(".")[0])
            return
        script = next((word for word in words if not word.startswith("-") and self._is_file(word)), None)
        if script is not None:
            for one in _links(os.path.join(launch.cwd, script)):
                self.add(one)
                if _NODE.match(name):
                    self._package_of(one)
                else:
                    self._folder(os.path.dirname(one))

    def _is_file(self, word: str) -> bool:
        return os.path.isfile(os.path.join(self._launch.cwd, word))

    def _module(self, name: str) -> None:
        cwd = self._launch.cwd
        for found in (os.path.join(cwd, name), os.path.join(cwd, f"{name}.py")):
            if os.path.exists(found):
                self.add(found)
                self._folder(cwd)

    def _folder(self, folder: str) -> None:
        """A folder, if it is not so wide that others' files are in it."""
        if not self._is_wide(folder):
            self.add(folder)

    def _is_wide(self, folder: str) -> bool:
        folder = os.path.realpath(folder)
        return within(self._home, folder) or folder in (os.path.join(self._home, ".local"), os.path.realpath("/tmp"))

    def _prefix_of(self, program: str) -> None:
        """What is installed with a program: the folder that has its `bin` and `lib`."""
        folder = os.path.dirname(program)
        prefix = os.path.dirname(folder) if os.path.basename(folder) in ("bin", "sbin") else ""
        if (
            not prefix
            or self._is_wide(prefix)
            or prefix in self.paths
            or not os.path.isdir(os.path.join(prefix, "lib"))
        ):
            return
        self.add(prefix)
        settings = _settings(os.path.join(prefix, "pyvenv.cfg"))
        if base := settings.get("home"):
            for name in ("python3", "python"):
                self.program(os.path.join(base, name))
        sites = [
            site for lib in ("lib", "lib64") for site in glob.glob(f"{glob.escape(prefix)}/{lib}/python3*/*-packages")
        ]
        if not settings or settings.get("include-system-site-packages") == "true":
            sites += glob.glob(f"{glob.escape(self._home)}/.local/lib/python3*/site-packages")
        for site in sites:
            self.add(site)
            self.watched[site] = changed(site)
            for outside in _led_to(site):
                self._folder(outside)

    def _run_by(self, script: str) -> None:
        for word in _first_line(script):
            if os.path.basename(word) != "env" and not word.startswith("-") and "=" not in word:
                self.program(word)
                return

    def _package_of(self, script: str) -> None:
        """The package that a script of Node's is in, and where it looks for others."""
        folders = [str(folder) for folder in Path(script).parents]
        package = next((one for one in folders if os.path.isfile(os.path.join(one, "package.json"))), folders[0])
        self._folder(package)
        for folder in folders:
            modules = os.path.join(folder, "node_modules")
            if os.path.isdir(modules):
                self.add(modules)
                self.watched[modules] = changed(modules)
                for name in (*glob.glob(f"{glob.escape(modules)}/*"), *glob.glob(f"{glob.escape(modules)}/@*/*")):
                    if os.path.islink(name):  # a package of the same workspace
                        self._folder(os.path.realpath(name))


def _links(path: str) -> Iterator[str]:
    """A file, and those that it is a link to, one after the other."""
    for _ in range(_MOST_LINKS):
        yield path
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        except OSError:
            break
    yield os.path.realpath(path)


def changed(folder: str) -> float:
    """When something was put into a folder or taken out of it last; -1 of one that is not there."""
    try:
        return os.stat(folder).st_mtime
    except OSError:
        return -1


def _first_line(script: str) -> list[str]:
    """The words of the line that names a script's interpreter."""
    with suppress(OSError), open(script, "rb") as file:
        line = file.read(_FIRST_LINE).partition(b"\n")[0]
        if line.startswith(b"#!"):
            return os.fsdecode(line[2:]).split()
    return []


def _settings(file: str) -> Mapping[str, str]:
    """Of a `pyvenv.cfg`."""
    with suppress(OSError, UnicodeDecodeError):
        pairs = (line.partition("=") for line in Path(file).read_text().splitlines())
        return {key.strip().lower(): value.strip() for key, _, value in pairs}
    return {}


def _led_to(site: str) -> Iterator[str]:
    """Where a folder of packages leads: by its `.pth` files, and to packages that are being worked on."""
    for file in glob.glob(f"{glob.escape(site)}/*.pth"):
        with suppress(OSError, UnicodeDecodeError):
            for line in Path(file).read_text().splitlines():
                if line.strip() and not line.startswith(("#", "import ", "import\t")):
                    yield os.path.join(site, line.strip())
    for file in glob.glob(f"{glob.escape(site)}/*.dist-info/direct_url.json"):
        with suppress(OSError, ValueError, AttributeError):
            said = json.loads(Path(file).read_text())
            if said.get("dir_info", {}).get("editable"):
                yield unquote(urlsplit(said["url"]).path)


def _library_folders() -> Iterator[str]:
    """Where the system's loader looks for libraries."""
    for file in ("/etc/ld.so.conf", *glob.glob("/etc/ld.so.conf.d/*.conf")):
        with suppress(OSError, UnicodeDecodeError):
            yield from (line.strip() for line in Path(file).read_text().splitlines() if line.startswith("/"))
