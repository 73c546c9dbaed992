"""Command lines of npx and uvx that muxsim cannot resolve by itself: these programs run as they stand, at a price."""

from __future__ import annotations


class AsItStands(Exception):
    """Only the program itself knows what this command line runs; the message says because of what."""
