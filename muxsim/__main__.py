"""``python -m muxsim``."""

from muxsim.cli import main

main()
