"""The targets under atheris, which looks for bytes that reach new lines; by hand, for as long as one likes.

    uv run --with atheris python tests/fuzz/by_coverage.py envelope -max_total_time=60

What stands behind the target goes to libFuzzer. A crash leaves its bytes in a file; name that to see it again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent.parent)]
with atheris.instrument_imports(include=["transports"]):
    from fuzz.targets import SEEDS, TARGETS


def main() -> None:
    """Fuzz one target; ends the process."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"{__doc__}\nTargets: {', '.join(TARGETS)}")
    target = TARGETS[sys.argv.pop(1)]
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(seed)
    if all(argument.startswith("-") for argument in sys.argv[1:]):
        sys.argv.append(str(corpus))
    atheris.Setup(sys.argv, lambda data: target(bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
