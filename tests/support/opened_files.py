"""Runs the command line and lists the files under a directory that Python opened, one a line, in LIST."""

import pathlib
import sys
from typing import Any


def main(directory: str, listed: str, words: list[str]) -> int:
    opened: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(directory):
            opened.append(str(arguments[0]))

    sys.addaudithook(note)
    from csbp_jax.cli.main import main as run

    code = run(words)
    pathlib.Path(listed).write_text("\n".join(opened))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
