"""A conda channel of `file://`, made of this machine's own interpreter, its node, and small packages."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PYTHON = ".".join(map(str, sys.version_info[:3]))
NODE = ("node", "npm", "npx")
# What no test asks an interpreter for, and its own packages: they are most of it.
_LEFT_OUT = ("test", "site-packages", "dist-packages", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip")


_INDEX = """
import asyncio, os, sys
from rattler.index import index_fs
asyncio.run(index_fs(sys.argv[1], write_zst=False, write_shards=False, force=True))
os._exit(0)  # its threads would not survive the end of an interpreter
"""


@dataclass(frozen=True)
class File:
    """One file of a package: its content, or where that is, or what it is a link to."""

    content: bytes | Path = b""
    link: str = ""
    executable: bool = False
    prefix: str = ""
    """The path in it of which the environment's own is to be made."""


def text(content: str, *, executable: bool = False) -> File:
    """A file with this text."""
    return File(content.encode(), executable=executable)


class Channel:
    """A folder of packages; `index` makes it a channel, with all that was added until then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "noarch").mkdir(parents=True)
        self.url = folder.as_uri()

    def index(self) -> Channel:
        """Say what there is, as a channel's server does."""
        subprocess.run(
            [sys.executable, "-c", _INDEX, self.folder], check=True
        )  # its threads would stay in this process
        return self

    def add(
        self,
        name: str,
        version: str,
        files: Mapping[str, File],
        *,
        depends: tuple[str, ...] = (),
        noarch: str = "",
        commands: tuple[str, ...] = (),
    ) -> Path:
        """A package with these files; of `commands` (`x = module:function`) scripts are made, as pip does."""
        subdir = "noarch" if noarch else _subdir()
        index = {"name": name, "version": version, "build": "0", "build_number": 0, "subdir": subdir}
        index |= {"depends": list(depends), **({"noarch": noarch} if noarch else {})}
        info = {"info/index.json": index, "info/paths.json": _paths(files)}
        if commands:
            info["info/link.json"] = {
                "noarch": {"type": "python", "entry_points": list(commands)},
                "package_metadata_version": 1,
            }
        archive = self.folder / subdir / f"{name}-{version}-0.conda"
        archive.parent.mkdir(exist_ok=True)
        about = {path: File(json.dumps(content).encode()) for path, content in info.items()}
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as whole:
            whole.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
            for part, content in (("pkg", files), ("info", about)):
                with whole.open(f"{part}-{archive.stem}.tar.zst", "w", force_zip64=True) as stream:
                    _write_tar(stream, content)
        return archive

    def add_module(self, name: str, version: str, source: str, *, depends: tuple[str, ...] = ("python",)) -> Path:
        """A package for any Python: one module, and a command of its name that runs its `main`."""
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        about = f"site-packages/{name}-{version}.dist-info"
        files = {
            f"site-packages/{name}.py": text(source),
            f"{about}/METADATA": text(metadata),
            f"{about}/RECORD": text(f"{name}.py,,\n"),
            f"{about}/INSTALLER": text("conda\n"),
        }
        return self.add(name, version, files, depends=depends, noarch="python", commands=(f"{name} = {name}:main",))

    def add_python(self) -> Path:
        """The interpreter that runs the tests, as a package."""
        return self.add("python", PYTHON, dict(_python_files()))

    def add_node(self) -> Path:
        """The machine's node and npm, as a package of links to them: they are large, and know no prefix."""
        files = {f"bin/{name}": File(link=os.path.realpath(shutil.which(name) or name)) for name in NODE}
        return self.add("nodejs", "20.0.0", files)


def _subdir() -> str:
    return {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[os.uname().machine]


def _python_files() -> Iterator[tuple[str, File]]:
    short = "python{}.{}".format(*sys.version_info)
    yield f"bin/{short}", File(_relocatable(Path(os.path.realpath(sys.executable))), executable=True)
    yield "bin/python3", File(link=short)
    yield "bin/python", File(link=short)
    shared = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME") or "")
    if shared.is_file() and ".so" in shared.name:
        yield f"lib/{shared.name}", File(shared, executable=True)
    home = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
    for path in _files_of(home, _LEFT_OUT):
        if not path.startswith("config-") and path != "EXTERNALLY-MANAGED" and ".opt-" not in path:
            prefix = sys.base_prefix if path.startswith("_sysconfigdata") else ""
            yield f"lib/{short}/{path}", File(home / path, prefix=prefix)


def _relocatable(program: Path) -> bytes:
    """A program that looks for its libraries beside itself, as those of conda do, and not where it was installed."""
    content, beside = program.read_bytes(), b"$ORIGIN/../lib"
    where = os.fsencode(sysconfig.get_config_var("LIBDIR") or "")
    if len(where) < len(beside):  # that of the system, for which nothing has to be said
        return content
    return content.replace(where + b"\0", beside.ljust(len(where) + 1, b"\0"))


def _files_of(home: Path, left_out: tuple[str, ...]) -> Iterator[str]:
    for folder, folders, files in os.walk(home):
        folders[:] = [name for name in folders if folder != str(home) or name not in left_out]
        yield from (os.path.relpath(os.path.join(folder, name), home) for name in files)


def _paths(files: Mapping[str, File]) -> dict[str, object]:
    return {"paths_version": 1, "paths": [_path(name, file) for name, file in sorted(files.items())]}


def _path(name: str, file: File) -> dict[str, object]:
    if file.link:
        return {"_path": name, "path_type": "softlink", "size_in_bytes": 0}
    content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
    entry = {"_path": name, "path_type": "hardlink", "size_in_bytes": len(content)}
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    return entry | ({"prefix_placeholder": file.prefix, "file_mode": "text"} if file.prefix else {})


def _write_tar(stream: IO[bytes], files: Mapping[str, File]) -> None:
    frame = _Frame(stream)
    with tarfile.open(fileobj=frame, mode="w|") as tar:  # type: ignore[arg-type]
        for name, file in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755 if file.executable else 0o644
            if file.link:
                entry.type, entry.linkname = tarfile.SYMTYPE, file.link
                tar.addfile(entry)
            elif isinstance(file.content, bytes):
                entry.size = len(file.content)
                tar.addfile(entry, io.BytesIO(file.content))
            else:
                status = file.content.stat()
                entry.size, entry.mtime = status.st_size, int(status.st_mtime)  # compiled files tell by its source's
                with file.content.open("rb") as opened:
                    tar.addfile(entry, opened)
    frame.finish()


class _Frame:
    """A frame of zstd whose blocks are as they are: nothing is compressed, which costs no time and no library."""

    _BLOCK = 128 * 1024

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._rest = stream, bytearray()
        stream.write(b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x38")  # magic, no sizes and sums, a window of 128 KiB

    def write(self, data: bytes) -> int:
        self._rest += data
        while len(self._rest) > self._BLOCK:
            self._block(bytes(self._rest[: self._BLOCK]), last=False)
            del self._rest[: self._BLOCK]
        return len(data)

    def finish(self) -> None:
        self._block(bytes(self._rest), last=True)

    def _block(self, data: bytes, *, last: bool) -> None:
        self._stream.write((len(data) << 3 | last).to_bytes(3, "little") + data)


def standard_channel(folder: Path) -> Channel:
    """This interpreter as `python`, and `greeting` in two versions, which says where it runs."""
    channel = Channel(folder)
    channel.add_python()
    for version in ("1.0", "2.0"):
        channel.add_module("greeting", version, f"import sys\ndef main():\n    print('{version}', sys.prefix)\n")
    return channel.index()
