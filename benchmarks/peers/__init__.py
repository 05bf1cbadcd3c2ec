"""The other libraries that are timed, each in its own environment.

python -m benchmarks.peers [FOLDER]      makes the environments (.bench by default)
"""

import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

TORCH = ("torch==2.13.0", "numpy==2.4.6")
REQUIREMENTS = {
    "spikingjelly": ("spikingjelly==2.0.0", *TORCH),
    "snntorch": ("snntorch==1.0.0", *TORCH),
    "norse": ("norse==1.1.0", *TORCH),
    "spyx": ("spyx==1.0.0", "jax==0.10.2", "flax==0.12.8", "numpy==2.4.6"),
}
MODULES = {name: f"benchmarks.peers.in_{name}" for name in REQUIREMENTS}
LAYOUTS = ("channels first", "channels last")
"""In memory, of torch's images and kernels; which is faster depends on the shapes."""
MODES = {"eagerly": None, "compiled": "default", "autotuned": "max-autotune-no-cudagraphs"}
"""How torch runs a program: the ``mode`` of ``torch.compile``, None without it."""


def fastest(clocks: Mapping[str, Mapping[str, np.ndarray]], names: Iterable[str]) -> str:
    """The program that took least CPU time, by the median over rounds, of some in what ``in_rounds`` returns."""
    return min(names, key=lambda name: float(np.median(clocks[name]["cpu"].sum(1))))


def pythons(
    folder: str | pathlib.Path, report: Callable[[str], Any] = print, only: Iterable[str] | None = None
) -> dict[str, str]:
    """Install all or the named libraries, and return ``{name: its Python}``; leaves out and reports one that fails."""
    installed = {}
    for name in REQUIREMENTS if only is None else only:
        requirements = REQUIREMENTS[name]
        environment = pathlib.Path(folder).resolve() / name
        python, mark = environment / "bin" / "python", environment / "installed.txt"
        if not mark.exists() or mark.read_text().split() != list(requirements):
            report(f"installing {', '.join(requirements)} into {environment} (once)")
            problem = _install(environment, python, requirements)
            if problem:
                report(f"{name} is left out: {problem}")
                continue
            mark.write_text("\n".join(requirements))
        installed[name] = str(python)
    return installed


def _install(environment: pathlib.Path, python: pathlib.Path, requirements: Sequence[str]) -> str | None:
    """Make an environment; returns the error, or None."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    for line in ([sys.executable, "-m", "venv", str(environment)], pip):
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return None
