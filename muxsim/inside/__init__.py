"""Code that runs in other processes than muxsim's own, by its path: standard library only, and nothing of muxsim's.

The guardian's runs in muxsim's interpreter, all other in that of an environment.
"""

from pathlib import Path
from typing import Final

_HERE = Path(__file__).parent

GUARDIAN: Final = str(_HERE / "guardian.py")
BEGIN: Final = str(_HERE / "begin.py")
LEARNER: Final = (BEGIN, "learner")
ZYGOTE: Final = (BEGIN, "zygote")
WARM_NODE: Final = str(_HERE / "warm_node.cjs")
INSTALLED: Final = str(_HERE / "installed.py")
NODE_PACKAGES: Final = str(_HERE / "node_packages.mjs")
