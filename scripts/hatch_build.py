"""Puts the dashboard into wheels and sdists. Where it cannot be built they do without, and muxsim says so at `/`."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Dashboard(BuildHookInterface):
    """Builds it first, unless it is there: an sdist has what came of it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files."""
        root = Path(self.root)
        if version == "editable" or not (root / "dashboard" / "package.json").is_file():
            return
        try:
            runpy.run_path(str(root / "scripts" / "build_dashboard.py"))["build"]()
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"without the dashboard: {error}")
