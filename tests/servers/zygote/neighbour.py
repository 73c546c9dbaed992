"""Lies beside the probe, and counts how often it is imported in one process."""

IMPORTED = []
IMPORTED.append(__name__)
