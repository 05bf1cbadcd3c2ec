"""The libraries that are timed beside this one, each in an environment of its own.

python -m benchmarks.peers [FOLDER]      makes the environments (.bench by default)
"""

import pathlib
import subprocess
import sys

TORCH = ("torch==2.13.0", "numpy==2.4.6")
REQUIREMENTS = {
    "spikingjelly": ("spikingjelly==2.0.0", *TORCH),
    "snntorch": ("snntorch==1.0.0", *TORCH),
    "norse": ("norse==1.1.0", *TORCH),
    "spyx": ("spyx==1.0.0", "jax==0.10.2", "flax==0.12.8", "numpy==2.4.6"),
}
MODULES = {name: f"benchmarks.peers.in_{name}" for name in REQUIREMENTS}


def pythons(folder, tell=print):
    """``{peer: its Python}``; one that cannot be installed is told and left out."""
    found = {}
    for name, requirements in REQUIREMENTS.items():
        place = pathlib.Path(folder).resolve() / name
        python, mark = place / "bin" / "python", place / "installed.txt"
        if not mark.exists() or mark.read_text().split() != list(requirements):
            tell(f"installing {', '.join(requirements)} into {place} (once)")
            problem = _install(place, python, requirements)
            if problem:
                tell(f"{name} is left out: {problem}")
                continue
            mark.write_text("\n".join(requirements))
        found[name] = str(python)
    return found


def _install(place, python, requirements):
    """What went wrong, if anything did."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    for line in ([sys.executable, "-m", "venv", str(place)], pip):
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return None
