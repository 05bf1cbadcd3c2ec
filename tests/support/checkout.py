"""A copy of the repository as one who clones it would have it, with what is not committed yet."""

import pathlib
import shutil
import subprocess

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
