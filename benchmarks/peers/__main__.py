"""Install the other libraries: ``python -m benchmarks.peers [FOLDER]``."""

import sys

from benchmarks.peers import pythons

folder = sys.argv[1] if sys.argv[1:] else ".bench"
print("\n".join(f"{name}: {python}" for name, python in pythons(folder).items()))
