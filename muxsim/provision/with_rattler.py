"""Solves and installs a conda environment with py-rattler: a program of its own, which can be ended at any moment.

``python -m muxsim.provision.with_rattler order.json`` does what the order (`Order`) says. What is installed is in
``PREFIX/conda-meta`` afterwards, as conda keeps it, and `RESULT` beside that. If it fails, the last line says why,
after `FAULT`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec
from rattler import (
    Channel,
    ChannelConfig,
    Client,
    Config,
    Gateway,
    MatchSpec,
    PackageRecord,
    PrefixRecord,
    RepoDataRecord,
    SourceConfig,
    Subdir,
    VirtualPackage,
    VirtualPackageOverrides,
    install,
    solve,
)
from rattler.exceptions import (
    GatewayError,
    InstallerError,
    InvalidChannelError,
    InvalidMatchSpecError,
    InvalidPackageNameError,
    InvalidUrlError,
    InvalidVersionError,
    SolverError,
)
from rattler.package import BuildString
from rattler.package_cache import PackageCache, PackageCacheLayer, ValidationMode
from rattler.shell import ActivationVariables, Shell, activate

from muxsim.provision.conda_records import FAULT, OFFLINE, RESULT, Order, Pin, Result, shown_channel
from muxsim.provision.secrets import without_secrets

# What `defaults` stands for: it is no channel itself.
_DEFAULTS: Final = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
# What a shell itself sets, and what is only of use at a prompt.
_OF_SHELLS: Final = frozenset({"PATH", "PWD", "OLDPWD", "SHLVL", "_", "PS1", "CONDA_SHLVL", "CONDA_PROMPT_MODIFIER"})


class Unfulfilled(Exception):
    """What was ordered cannot be had; the message is one line, and says which part of it."""


class Reporter:
    """Says on stdout what is being installed; see `rattler.InstallerReporter`, which has all of these methods."""

    def on_transaction_start(self, total_operations: int) -> None:
        """How many there are."""
        _say(f"{total_operations} packages")

    def on_link_start(self, operation: int, package_name: str) -> int:
        """The one that comes now."""
        _say(f"linking {package_name}")
        return operation

    def __getattr__(self, name: str) -> Any:
        """Everything else passes unsaid."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_: 0


def main() -> int:
    """Does it; returns the exit status."""
    order = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    prefix = Path(order.prefix)
    try:
        pins = asyncio.run(_install(order))
        _compile(prefix)
        _forget_secrets(prefix)
        (prefix / RESULT).write_bytes(msgspec.json.encode(Result(pins, *_activation(prefix))))
    except Unfulfilled as error:
        return _failed(str(error), None)
    except (GatewayError, InstallerError, SolverError) as error:
        return _failed(_first_line(error), error)
    return 0


def _failed(why: str, error: Exception | None) -> int:
    if error is not None:
        _say(str(error))
    _say(f"{FAULT}{why}")
    return 1


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return "; ".join([lines[0], *(cause.removeprefix("Caused by: ") for cause in causes[-1:])])


def _say(line: str) -> None:
    sys.stdout.write(f"{without_secrets(line)}\n")
    sys.stdout.flush()


# ---- which packages


async def _install(order: Order) -> tuple[Pin, ...]:
    cache = Path(order.cache)
    client = Client.default_client()
    specs = {spec: _match_spec(spec) for spec in order.specs}
    channels = _channels(order, specs)
    if order.pins:
        records = [_pinned(pin, channels) for pin in order.pins]
    else:
        records = await _solved(channels, specs, client, cache / "repodata")
    _check_archives(records)
    # Every file is looked at, for what has once been torn would be so in all environments.
    layer = PackageCacheLayer(cache / "pkgs").with_validation_mode(ValidationMode.full())
    await install(
        records,
        order.prefix,
        package_cache=PackageCache.from_layers([layer]),
        execute_link_scripts=True,
        client=client,
        # What writes into one environment is not to write into this cache, and so into others.
        config=Config.from_toml("allow-hard-links = false"),
        reporter=Reporter(),
    )
    _verify(specs, Path(order.prefix))
    return tuple(_pin(record, channels) for record in records)


def _channels(order: Order, specs: Mapping[str, MatchSpec]) -> dict[str, Channel]:
    """The channels by what they were called, in their order, then those that only a spec names."""
    config = ChannelConfig(root_dir=order.prefix)
    names = [one for name in order.channels for one in (_DEFAULTS if name == "defaults" else (name,))]
    names += [spec.channel.base_url for spec in specs.values() if spec.channel is not None]
    found: dict[str, Channel] = {}
    for name in names:
        try:
            channel = Channel(name, config)
        except (InvalidChannelError, InvalidUrlError) as error:
            raise Unfulfilled(f"{shown_channel(name)!r} is no channel: {_first_line(error)}") from error
        if channel.base_url not in {one.base_url for one in found.values()}:
            found[shown_channel(name)] = channel
    return found


def _match_spec(spec: str) -> MatchSpec:
    try:
        return MatchSpec(spec)
    except InvalidMatchSpecError as error:
        raise Unfulfilled(f"{spec!r} is no spec of a package: {_first_line(error)}") from error


async def _solved(
    channels: Mapping[str, Channel], specs: Mapping[str, MatchSpec], client: Client, cache: Path
) -> list[RepoDataRecord]:
    source = SourceConfig(cache_action="force-cache-only" if os.environ.get(OFFLINE) else "cache-or-fetch")
    gateway = Gateway(cache_dir=cache, default_config=source, client=client)
    virtual = VirtualPackage.detect(VirtualPackageOverrides.from_env())
    _say(f"solving {', '.join(specs)}")
    sources = list(channels.values())
    try:
        return await solve(sources, list(specs.values()), gateway=gateway, virtual_packages=virtual)
    except SolverError as error:
        _say(str(error))
        platforms = [Subdir.current(), Subdir("noarch")]
        for name, spec in specs.items():
            if not any(await gateway.query(sources, platforms, [spec], recursive=False)):
                where = ", ".join(channels)
                raise Unfulfilled(f"no channel of {where} has {name} for {Subdir.current()}") from error
        raise Unfulfilled(f"{', '.join(specs)} cannot be had together") from error


def _pin(record: RepoDataRecord, channels: Mapping[str, Channel]) -> Pin:
    pin = msgspec.json.decode(record.to_json(), type=Pin)
    named = [name for name, channel in channels.items() if channel.base_url == pin.channel]
    return msgspec.structs.replace(pin, channel=named[0] if named else shown_channel(pin.channel))


def _pinned(pin: Pin, channels: Mapping[str, Channel]) -> RepoDataRecord:
    try:
        return _record(pin, channels)
    except (ValueError, InvalidChannelError, InvalidPackageNameError, InvalidUrlError, InvalidVersionError) as error:
        raise Unfulfilled(f"what the lock says of {pin.name} cannot be used: {_first_line(error)}") from error


def _record(pin: Pin, channels: Mapping[str, Channel]) -> RepoDataRecord:
    channel = channels.get(pin.channel) or Channel(pin.channel)
    record = PackageRecord(
        pin.name,
        pin.version,
        BuildString.new_unchecked(pin.build),
        pin.build_number,
        pin.subdir,
        noarch=pin.noarch,
        depends=list(pin.depends),
        sha256=bytes.fromhex(pin.sha256) or None,
        md5=bytes.fromhex(pin.md5) or None,
        size=pin.size,
        python_site_packages_path=pin.python_site_packages_path,
    )
    url = f"{channel.base_url.rstrip('/')}/{pin.subdir}/{pin.fn}"
    return RepoDataRecord(record, pin.fn, url, channel.base_url)


def _check_archives(records: list[RepoDataRecord]) -> None:
    """Whether archives on this machine are what the channel or the lock says; of fetched ones py-rattler sees to it."""
    for record in records:
        parts = urlsplit(record.url)
        path = Path(unquote(parts.path))
        if parts.scheme == "file" and path.is_file():  # else it may still be in the cache
            for kind, expected in (("sha256", record.sha256), ("md5", record.md5)):
                with path.open("rb") as file:
                    if expected and hashlib.file_digest(file, kind).digest() != expected:
                        raise Unfulfilled(f"{path} is not what was asked for: its {kind} is not {expected.hex()}")


def _verify(specs: Mapping[str, MatchSpec], prefix: Path) -> None:
    """Whether what is there is what was asked for: pins are of a file that anybody may have written."""
    there = [PrefixRecord.from_path(path) for path in (prefix / "conda-meta").glob("*.json")]
    for name, spec in specs.items():
        if not any(spec.matches(record) for record in there):
            raise Unfulfilled(f"the lock has nothing that {name} asks for: lock the environment anew")


# ---- what else they need


def _compile(prefix: Path) -> None:
    """Packages for any Python bring no compiled modules, and nobody can add them to a folder that is read-only."""
    python = prefix / "bin" / "python"
    for folder in prefix.glob("lib/python*/site-packages"):
        if python.exists() and not folder.parent.is_symlink():
            # Some packages have templates and tests among their modules that no Python can compile.
            subprocess.run([python, "-I", "-m", "compileall", "-q", folder], stdout=subprocess.DEVNULL, check=False)


def _forget_secrets(prefix: Path) -> None:
    """What opens a channel is not for the sessions that run there; records keep the addresses of their archives."""
    for path in (prefix / "conda-meta").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        if (kept := without_secrets(text)) != text:
            path.write_text(kept, encoding="utf-8")


def _activation(prefix: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """What activating it changes, which is the same each time, so that no session has to run the scripts."""
    path = os.environ.get("PATH", os.defpath)
    script = activate(prefix, ActivationVariables(current_path=path.split(os.pathsep)), Shell.bash).script
    shell = shutil.which("bash") or shutil.which("sh")
    if shell is None:
        raise Unfulfilled("there is no shell for the packages' activation scripts: install bash")
    variables = {"PATH": path, "HOME": os.environ.get("HOME", "/")}
    command = [shell, "-c", f"{{ {script}\n}} >&2; exec env -0"]
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise Unfulfilled(f"the packages' activation scripts end with exit status {done.returncode}")
    after = dict(line.partition("=")[::2] for line in done.stdout.decode(errors="replace").split("\0") if line)
    added = {name: value for name, value in after.items() if name.isidentifier() and variables.get(name) != value}
    own = tuple(one for one in after.get("PATH", "").split(os.pathsep) if Path(one).is_relative_to(prefix))
    return own, {name: value for name, value in added.items() if name not in _OF_SHELLS}


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # threads of py-rattler that are still at work do not survive the end of an interpreter
