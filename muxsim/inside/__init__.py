"""Code that runs in other processes than muxsim's own, by its path: standard library only, and nothing of muxsim's.

The guardian's runs in muxsim's interpreter, all other in that of an environment.
"""

from pathlib import Path
from typing import Final

_HERE = Path(__file__).parent

GUARDIAN: Final = str(_HERE / "guardian.py")
LEARNER: Final = str(_HERE / "learner.py")
ZYGOTE: Final = str(_HERE / "zygote.py")
WARM_NODE: Final = str(_HERE / "warm_node.cjs")
