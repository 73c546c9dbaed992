"""Runs the official MCP conformance suite against a URL, and compares two runs check by check.

By hand, with the fixture of `tests/servers/conformance` (or any other server) listening:

    python tests/conformance/run.py --suite 0.2.0-alpha.12 --revision 2026-07-28 URL [OTHER_URL]

One URL prints its table; two print where they differ. The exit status is 1 if a check failed or the tables differ.
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import trio

HERE = Path(__file__).resolve().parent
FIXTURE_FOLDER = HERE.parent / "servers" / "conformance"

# How many scenarios `--suite all` has for a revision. A suite that suddenly runs fewer has skipped something.
SCENARIO_COUNTS = {
    ("0.1.16", "2025-06-18"): 26,
    ("0.1.16", "2025-11-25"): 32,
    ("0.2.0-alpha.12", "2025-06-18"): 27,
    ("0.2.0-alpha.12", "2025-11-25"): 33,
    ("0.2.0-alpha.12", "2026-07-28"): 40,
}

# A direct run takes 2 to 13 s. Behind a proxy each scenario starts a backend of its own, maybe on a busy machine.
SUITE_TIMEOUT_S = 240
INSTALL_TIMEOUT_S = 300

# What a scenario writes down of its own traffic. How many such rows there are depends on timing, and none is a verdict.
TRACE_IDS = frozenset({"outgoing-request", "incoming-response", "incoming-sse-event", "stream-closed"})

# The suite passes this check as SUCCESS when plain results came as event streams and as INFO when they came as JSON.
# The protocol leaves that to the server, and a proxy cannot know what its backend would have chosen.
JSON_OR_STREAM_ID = "server-sse-streams-functional"

RESULT_FOLDER = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d{2}-\d{2}T[\d-]+Z")


class SuiteError(Exception):
    """The suite itself did not run: not installed, a wrong version, or not all of its scenarios."""


@dataclass(frozen=True)
class Check:
    """One verdict: its status is SUCCESS, FAILURE, WARNING, SKIPPED or INFO, its message the suite's reason, if any."""

    id: str
    name: str
    status: str
    message: str = ""

    def __str__(self) -> str:
        return f"{self.status:7} {self.id} ({self.name})" + (f": {self.message}" if self.message else "")


Table = dict[str, list[Check]]  # scenario -> its checks, in the order in which the suite made them


def install(folder: Path) -> None:
    """Runs `npm ci` in `folder`, unless what its lock file says is there already."""
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_TIMEOUT_S, stdout=subprocess.DEVNULL)


def suite_node() -> str:
    """The Node that runs the suite: the pinned one, for the suite needs 22 or newer; else whatever `node` is there."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    pinned = HERE / "node_modules" / f"node-{sys.platform}-{machine}" / "bin" / "node"
    node = str(pinned) if pinned.exists() else shutil.which("node")
    if node is None:
        raise SuiteError("no Node found: install Node 22 or newer, or run `npm ci` in tests/conformance")
    return node


async def run_suite(suite: str, revision: str, url: str) -> Table:
    """The checks of all server scenarios that `suite` (a version) has for a protocol `revision`, run against `url`.

    Raises SuiteError if not every scenario reported, and trio.TooSlowError after SUITE_TIMEOUT_S.
    """
    entry = HERE / "node_modules" / f"conformance-{suite}" / "dist" / "index.js"
    with tempfile.TemporaryDirectory(prefix="conformance-") as results:
        command = [suite_node(), str(entry), "server", "--url", url]
        command += ["--suite", "all", "--spec-version", revision, "--output-dir", results]
        with trio.fail_after(SUITE_TIMEOUT_S):
            finished = await trio.run_process(
                command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, cwd=results
            )
        table = read_results(Path(results))
    wanted = SCENARIO_COUNTS.get((suite, revision), len(table))
    if not table or len(table) != wanted:
        log = finished.stdout.decode(errors="replace")[-2000:]
        raise SuiteError(
            f"suite {suite} reported {len(table)} of {wanted} scenarios for {revision}; its last words:\n{log}"
        )
    return table


def read_results(results: Path) -> Table:
    """The table that a finished run left in `results`: one folder a scenario, each with its checks.json."""
    table: Table = {}
    for folder in sorted(results.iterdir(), key=lambda path: path.stat().st_mtime):
        match = RESULT_FOLDER.fullmatch(folder.name)
        if match is not None:
            table[match["scenario"]] = read_checks(folder / "checks.json")
    return table


def read_checks(path: Path) -> list[Check]:
    if not path.exists():
        return [Check("scenario-crashed", "ScenarioCrashed", "FAILURE", "the scenario left no checks")]
    rows = json.loads(path.read_text())
    return [
        Check(row["id"], row["name"], row["status"], row.get("errorMessage") or "")
        for row in rows
        if row["id"] not in TRACE_IDS or row["status"] == "FAILURE"
    ]


def failures(table: Table) -> list[str]:
    return [f"{scenario}: {check}" for scenario, check in _checks(table) if check.status == "FAILURE"]


def differences(direct: Table, proxied: Table) -> list[str]:
    """One line for each scenario, and within it for each check, whose status is not the same in both tables."""
    lines = []
    for scenario in dict.fromkeys([*direct, *proxied]):
        if scenario not in direct or scenario not in proxied:
            lines.append(f"{scenario}: only {'direct' if scenario in direct else 'proxied'}")
            continue
        left, right = _comparable(direct[scenario]), _comparable(proxied[scenario])
        lines += [f"{scenario}: direct  {check}" for check in _only_in(left, right)]
        lines += [f"{scenario}: proxied {check}" for check in _only_in(right, left)]
    return lines


def render(table: Table) -> str:
    """The table for people: one line a scenario with the number of checks by status; what is not a success in full."""
    lines = []
    for scenario, checks in table.items():
        counts = Counter(check.status for check in checks)
        mark = "FAIL" if counts["FAILURE"] else "ok"
        lines.append(f"{mark:4} {scenario:48} " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
        lines += [f"         {check}" for check in checks if check.status != "SUCCESS"]
    passed = sum(all(check.status != "FAILURE" for check in checks) for checks in table.values())
    lines.append(f"{passed} of {len(table)} scenarios passed")
    return "\n".join(lines)


def _checks(table: Table) -> Iterator[tuple[str, Check]]:
    for scenario, checks in table.items():
        for check in checks:
            yield scenario, check


def _comparable(checks: list[Check]) -> list[Check]:
    """The checks with the one choice taken out that a server is free in."""
    return [
        replace(check, status="INFO") if check.id == JSON_OR_STREAM_ID and check.status == "SUCCESS" else check
        for check in checks
    ]


def _only_in(ours: list[Check], theirs: list[Check]) -> list[Check]:
    """Those of `ours` that `theirs` lacks, whatever the suite's message says: it names ports, ids and times."""
    remaining = Counter((check.id, check.name, check.status) for check in theirs)
    missing = []
    for check in ours:
        key = (check.id, check.name, check.status)
        if remaining[key]:
            remaining[key] -= 1
        else:
            missing.append(check)
    return missing


async def _main(arguments: argparse.Namespace) -> int:
    tables = [await run_suite(arguments.suite, arguments.revision, url) for url in arguments.urls]
    for url, table in zip(arguments.urls, tables, strict=True):
        print(f"{url}\n{render(table)}\n")
    problems = [line for table in tables for line in failures(table)]
    if len(tables) > 1:
        problems += differences(*tables)
        print("\n".join(differences(*tables)) or "the tables are equal")
    return 1 if problems else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs the official MCP conformance suite.")
    parser.add_argument("--suite", default="0.2.0-alpha.12", choices=sorted({suite for suite, _ in SCENARIO_COUNTS}))
    parser.add_argument("--revision", default="2025-11-25", choices=sorted({rev for _, rev in SCENARIO_COUNTS}))
    parser.add_argument("urls", nargs="+", metavar="URL", help="the server, and a second one to compare it with")
    arguments = parser.parse_args()
    if len(arguments.urls) > 2:
        parser.error("give one URL, or two to compare")
    return arguments


if __name__ == "__main__":
    install(HERE)
    sys.exit(trio.run(_main, _arguments()))
