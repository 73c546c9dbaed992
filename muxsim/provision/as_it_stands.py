"""Command lines of npx and uvx that muxsim cannot resolve by itself: these programs run as they stand, at a price."""

from __future__ import annotations

from muxsim.spec import EnvSpec


class AsItStands(Exception):
    """Only the program itself knows what this command line runs; the message says because of what."""


def tell(spec: EnvSpec, program: str, why: AsItStands) -> None:
    """Log what it costs that a spec is started as it stands."""
    import structlog  # noqa: PLC0415 - slow to import, and hardly ever needed

    structlog.get_logger().warning(
        "install.as_it_stands",
        env=spec.name,
        because=str(why),
        costs=f"each start runs {program} too, which takes its time and stays as a process of the session; what it has"
        " to install first has to be there within start_timeout, and it sees only the variables of env",
    )
