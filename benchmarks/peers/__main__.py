import sys

from benchmarks.peers import pythons

print("\n".join(f"{name}: {python}" for name, python in pythons(*sys.argv[1:] or [".bench"]).items()))
