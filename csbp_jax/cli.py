"""csbp_jax train DATASET [--name NAME] [--fresh] [--runs FOLDER] [--data-dir FOLDER] [--FIELD VALUE ...]
csbp_jax evaluate DATASET --weights FILE [--data-dir FOLDER] [--FIELD VALUE ...]
csbp_jax data DATASET [--from FOLDER] [--no-verify] [--read-all] [--data-dir FOLDER] [--FIELD VALUE ...]

train: trains on a data set; the same command again resumes, or says that the run is finished.
evaluate: the accuracy of a PyTorch checkpoint's weights (docs/weights.md).
data: prepares and verifies a data set, and tells how many records each part holds.

  --name NAME         the run's folder; by default the data set and a hash of its config
  --fresh             set an old run of this name aside and start anew
  --runs FOLDER       where runs are kept (default: runs)
  --from FOLDER       where the originals (archives, or a tfds folder) lie; downloaded where possible, if left out
  --no-verify         take originals of another size or checksum
  --read-all          read every record once, so that a damaged one is found now and not in training
  --data-dir FOLDER   where prepared data sets are kept (default: data)
  --FIELD VALUE       any field of the config, e.g. --chaos.z0 0 for plain backpropagation;
                      csbp_jax train DATASET --help lists them

Exit codes: 0 done, 2 wrong option, value or file, 3 diverged, 130 interrupted.
"""

import argparse
import contextlib
import dataclasses
import io
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence

import tyro

from csbp_jax import configs
from csbp_jax.config import Config, ConfigError, Diverged, check


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; what goes wrong is told in one line."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv or argv[0] in _HELP or (argv[0] in _COMMANDS and argv[1:2] and argv[1] in _HELP):
            print(__doc__ + f"\nData sets: {', '.join(configs.NAMES)}")
        elif argv[0] in _COMMANDS:
            _COMMANDS[argv[0]](argv[1:])
        else:
            raise ConfigError(f"there is no command {argv[0]!r}; there are {', '.join(_COMMANDS)} (csbp_jax --help)")
    except Diverged as error:
        return _fail(error, 3)
    except (ConfigError, OSError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        mend = "can be run again" if argv[0] == "data" else "goes on from the last checkpoint"
        return _fail(f"interrupted; the same command {mend}", 130)
    return 0


def _fail(message, code):
    """In one line: names of files may hold any character."""
    print("csbp_jax:", "\\n".join(str(message).splitlines()), file=sys.stderr)
    return code


def _train(argv):
    options, config = _read("train", argv, {"--name": None, "--fresh": False, "--runs": "runs"})
    if config.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    # JAX takes a second to import, and reads XLA_FLAGS when it starts.
    from csbp_jax.train import train

    train(config, name=options.name, fresh=options.fresh, root=options.runs, data_dir=options.data_dir)


def _evaluate(argv):
    options, config = _read("evaluate", argv, {})
    from csbp_jax.evaluate import evaluate

    evaluate(config, data_dir=options.data_dir)


def _data(argv):
    options, config = _read("data", argv, {"--from": None, "--no-verify": False, "--read-all": False})
    from csbp_jax import data, report

    name, folder = config.data.name, options.data_dir
    with report.stages(report.Console(highlight=False, markup=False)) as show:
        data.prepare(config, vars(options)["from"], folder, verify=not options.no_verify, show=show)
        parts = data.load(config, folder)
        if options.read_all:
            data.read_all(parts, show)
    print(f"{name}: {', '.join(f'{part} {len(source)}' for part, source in parts.items())} records")


_COMMANDS = {"train": _train, "evaluate": _evaluate, "data": _data}
_HELP = ("-h", "--help")


def _read(command, argv, own):
    """The command's own options and the config; an option whose default is False takes no value."""
    if argv == ["--environment"]:
        argv = from_environment(command, os.environ)
    if not argv or argv[0].startswith("-"):
        raise ConfigError(f"DATASET: missing; write csbp_jax {command} DATASET, one of {', '.join(configs.NAMES)}")
    config = configs.load(argv[0])
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option, default in {**own, "--data-dir": "data"}.items():
        parser.add_argument(option, default=default, action="store_true" if default is False else "store")
    try:
        options, fields = parser.parse_known_args(argv[1:])
    except argparse.ArgumentError as error:
        raise ConfigError(error) from None
    for option, value in vars(options).items():
        if value == "":
            raise ConfigError(f"--{option.replace('_', '-')}: empty; give it a name")
        if option in ("from", "runs", "data_dir") and value:
            setattr(options, option, os.path.expanduser(value))
    config = parse(config, fields, f"csbp_jax {command} {argv[0]}")
    # As most shells would: the same folder gives the same config, and so the same run.
    own_folder = dataclasses.replace(config.data, dir=os.path.expanduser(config.data.dir))
    return options, dataclasses.replace(config, data=own_folder)


def from_environment(command: str, environment: Mapping[str, str]) -> list[str]:
    """The arguments of a command as ``make`` hands them over: in variables, so that no shell reads them.

    ``CSBP_DATASET``, ``CSBP_DATA_DIR``, ``CSBP_DIR`` (a user's own class folders), ``CSBP_ARGS``, the latter split as a
    shell would; for train also ``CSBP_NAME`` and ``CSBP_FRESH`` (1 or 0), for data ``CSBP_FROM``.

    Raises:
      ConfigError: no such data set, an open quotation mark, or FRESH is neither.
    """
    dataset, fresh, args = (environment.get(f"CSBP_{key}", "") for key in ("DATASET", "FRESH", "ARGS"))
    configs.load(dataset)
    if fresh not in ("", "0", "1"):
        raise ConfigError(f"FRESH: {fresh!r} is not possible; allowed are 1 and 0")
    try:
        more = shlex.split(args)
    except ValueError as error:
        raise ConfigError(f"ARGS: {args!r} cannot be split into words: {str(error).lower()}") from None
    own = {"train": {"NAME": "--name"}, "data": {"FROM": "--from"}}.get(command, {})
    options = {**own, "DATA_DIR": "--data-dir", "DIR": "--data.dir"}
    given = {option: environment.get(f"CSBP_{key}") for key, option in options.items()}
    words = [f"{option}={value}" for option, value in given.items() if value]
    return [dataset, *words, *(["--fresh"] if command == "train" and fresh == "1" else []), *more]


def parse(config: Config, argv: Sequence[str], prog: str) -> Config:
    """The config with the overrides of ``argv``.

    Raises:
      ConfigError: an option is unknown or a value impossible; names it and what is allowed, in one line.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            config = tyro.cli(Config, default=config, args=argv, prog=prog, description="Options of a run.")
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(_one_line(told.getvalue())) from None
    return check(config)


def _one_line(told):
    """From tyro's box (title, error, hints, with rules between): the error, and the hints' options."""
    parts = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", told).splitlines():  # colours, on a terminal
        bare = line.strip(" │╰╯")
        if line.startswith("╭") or (len(bare) > 20 and set(bare) <= set("-─")):
            parts.append([])
        else:
            parts[-1].append(bare)
    _, error, *hints = [" ".join(" ".join(part).split()) for part in parts]
    # An option and the form of its value: {a,b}, {None}|{FLOAT}, INT, or [INT [INT ...]].
    form = r"--[a-z0-9.-]+ (?:\{[^}]*\}(?:\|\{[^}]*\})*|\[[A-Z]+ \[[A-Z]+ \.\.\.\]\]|[A-Z]+\b)"
    options = [option for hint in hints for option in re.findall(form, hint)]
    kind = "perhaps you meant" if "Perhaps" in "".join(hints) else "it is"
    mend = f"{kind} {', '.join(options)}" if options else "--help lists all options and what they take"
    return f"{error.split(' Got errors')[0].rstrip('.')}; {mend}"
