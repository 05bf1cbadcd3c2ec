"""What a user does: a clone of the repository with what is not committed yet, make, and environments of packages."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def checkout(folder: pathlib.Path) -> pathlib.Path:
    """The files that git knows or would add; times are kept, as make compares them."""
    line = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(line, check=True, capture_output=True, text=True).stdout.split("\0"):
        # A deleted file is listed until that is committed.
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def make(folder: pathlib.Path, *arguments: str | pathlib.Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run make in a folder, without the variables of an outer one."""
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "CSBP_"))} | more
    line = ["make", "-C", folder, *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=settings, timeout=3600)


def environment(folder: pathlib.Path | str, *requirements: pathlib.Path | str) -> pathlib.Path:
    """Make an environment with these packages, as pip finds them today; return its ``bin``, or skip the test."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    programs = pathlib.Path(folder) / "bin"
    line = [programs / "python", "-m", "pip", "install", "-q", *requirements]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        names = ", ".join(map(str, requirements))
        pytest.skip(f"{names} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return programs
