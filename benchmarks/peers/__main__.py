"""Install the other libraries: ``python -m benchmarks.peers [FOLDER] [--only LIBRARY ...]``."""

import argparse

from benchmarks.peers import REQUIREMENTS, pythons

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default=".bench")
parser.add_argument("--only", nargs="*", choices=REQUIREMENTS, help="libraries; all by default")
options = parser.parse_args()
installed = pythons(options.folder, only=options.only)
print("\n".join(f"{name}: {python}" for name, python in installed.items()))
