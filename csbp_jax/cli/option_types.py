"""Types of options: annotations for tyro, the range of a number, and the function that checks and converts a word.

Errors of that function are one line, to which the option's name is added (parsing.py).
"""

import os
import re
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from csbp_jax.config import Config
from csbp_jax.config.schema import SEED
from csbp_jax.ranges import Range, integers


def _nonempty(word: str) -> str:
    if not word:
        raise ValueError("empty; give it a name")
    return word


def expand_path(word: str) -> str:
    """Expand ``~`` in a path on a file system.

    Raises:
      ValueError: it is an address.
    """
    if word.startswith("hf://"):
        raise ValueError(
            f"{word!r} is not possible; evaluate, predict, inspect, robustness and export take a network on the hub"
        )
    if re.match(r"[a-z][a-z0-9+.-]+://", word):  # pathlib would create a directory "gs:"
        raise ValueError(
            f"{word!r} is not possible, locks and renames need a file system; mount it, and give the directory "
            "(docs/running.md)"
        )
    return os.path.expanduser(_nonempty(word))


def _path_or_address(word: str) -> str:
    return word if "://" in word else expand_path(word)  # training checks addresses


def run_or_address(word: str) -> str:
    """Expand ``~`` in a path; the address of a network on the hub stays as it is.

    Raises:
      ValueError: it is another address.
    """
    return word if word.startswith("hf://") else expand_path(word)  # restore checks addresses


Flag = FlagCreatePairsOff[bool]
Name = Annotated[str | None, arg(metavar="NAME"), _nonempty]
RequiredName = Annotated[str, arg(metavar="NAME"), _nonempty]
Path = Annotated[str, arg(metavar="PATH"), expand_path]
OptionalPath = Annotated[str | None, arg(metavar="PATH"), expand_path]
Folders = Annotated[tuple[str, ...], arg(metavar="[PATH ...]"), expand_path]
OptionalRun = Annotated[str | None, arg(metavar="PATH"), run_or_address]
PathOrAddress = Annotated[str | None, arg(metavar="PATH"), _path_or_address]
Number = Annotated[int, arg(metavar="N"), integers(0, 10**9)]
Count = Annotated[int, arg(metavar="N"), integers(1, 10**9)]
OptionalCount = Annotated[int | None, arg(metavar="N"), integers(1, 10**9)]
Seed = Annotated[int, arg(metavar="N"), SEED]
Grid = Annotated[str | None, arg(metavar="GRID"), _nonempty]
Margin = Annotated[
    float | None,
    Range("above 0, to 100", lambda v: 0 < v <= 100),
    arg(
        metavar="POINTS",
        help="largest difference without importance, in percentage points; adds whether each paired difference is "
        "equal within it, better, worse or not decided (docs/using.md)",
    ),
]

Control = Annotated[
    str | None,
    arg(metavar="PATH"),
    expand_path,
    arg(
        help="run whose setting all others are compared with; by default the runs that are equal but for chaos.z0 0, "
        "or else the first run"
    ),
]
Chunk = Annotated[
    int | None,
    arg(
        metavar="N",
        help="runs that train at once, at most as many as share a compilation; by default 32 per device, or as many as "
        "fit its memory; on a CPU 24 of a network without convolutions, else one per device",
    ),
    integers(1, 10**9),
]
DataParallel = Annotated[
    int, arg(metavar="N", help="devices that share each batch; the others hold different runs"), integers(1, 10**9)
]
Follow = Annotated[Flag, arg(help="continue with new metrics until the runs are finished")]

# Options of several commands.
ConfigFields = Annotated[Config, arg(name="")]
DataDir = Annotated[Path, arg(help="directory of prepared data sets")]


def _argument(metavar: str, help: str | None = None) -> Any:
    """Return how help shows an argument without a name; its default, which is empty, stands for a missing one."""
    return arg(metavar=metavar, help=help, help_behavior_hint="(required)")


Run = Positional[
    Annotated[
        str,
        run_or_address,
        _argument("RUN", "directory of a run; hf://USER/NAME; or digits or digits_events, which ship with csbp_jax"),
    ]
]
RunDir = Positional[Annotated[str, expand_path, _argument("RUN", "directory of a run")]]
Repository = Positional[Annotated[str, _nonempty, _argument("USER/NAME", "repository on the Hugging Face hub")]]
SweepDir = Positional[Annotated[str, expand_path, _argument("SWEEP", "directory of a sweep")]]
Listed = Positional[Annotated[tuple[str, ...], _nonempty, arg(metavar="[WHAT ...]")]]
Runs = Positional[Annotated[tuple[str, ...], expand_path, _argument("RUN ...", "directories of runs")]]
RunsOrNetworks = Positional[Annotated[tuple[str, ...], run_or_address, _argument("RUN ...")]]
RunsOrExperiment = Positional[Annotated[tuple[str, ...], expand_path, _argument("RUN|EXPERIMENT ...")]]
Table = Positional[Annotated[str, expand_path, _argument("FILE.csv", "comma-separated, a row for each run")]]
Files = Positional[Annotated[tuple[str, ...], expand_path, _argument("FILE ...")]]
ARGUMENTS: dict[Any, str] = {
    ConfigFields: "DATASET|FILE.py",
    Run: "RUN",
    RunDir: "RUN",
    Repository: "USER/NAME",
    Runs: "RUN ...",
    RunsOrNetworks: "RUN ...",
    RunsOrExperiment: "RUN|EXPERIMENT ...",
    Files: "FILE ...",
    Table: "FILE.csv",
    SweepDir: "SWEEP",
    Listed: "[WHAT ...]",
}
"""What a usage line calls each type of argument without a name."""

MovedData = Annotated[
    OptionalPath, arg(name="data.dir", help="where the class folders of a run on your own data are now")
]
Split = Annotated[Literal["test", "validation", "train"], arg(help="split of the data")]
WeightsOf = Annotated[
    Literal["last", "chosen", "ema"],
    arg(help="weights of the last epoch, of the epoch chosen by validation, or their moving average"),
]
Trust = Annotated[
    Flag, arg(help="run the code of your own that is stored with the run (RUN/experiment.py); it may do anything")
]
OTHER_NAMES = {"from_": "from", "data": "data.dir"}
"""Options that are not called like their fields."""
