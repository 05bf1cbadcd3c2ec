"""csbp_jax train DATASET [--name NAME] [--fresh] [--runs FOLDER] [--data-dir FOLDER] [--FIELD VALUE ...]
csbp_jax evaluate RUN [--split test|validation|train] [--weights-of last|chosen] [--data-dir FOLDER]
csbp_jax evaluate DATASET --weights FILE [--data-dir FOLDER] [--FIELD VALUE ...]
csbp_jax predict RUN FILE ... [--out FILE.csv] [--top K] [--weights-of last|chosen] [--data-dir FOLDER]
csbp_jax inspect RUN [--layer NAME] [--examples N] [--split test|validation|train] [--weights-of last|chosen]
                 [--data-dir FOLDER]
csbp_jax sweep DATASET --grid "FIELD=VALUE,... FIELD=..." [--chunk N] [--data-parallel N] [--name NAME] [--fresh]
               [--sweeps FOLDER] [--data-dir FOLDER] [--FIELD VALUE ...]
csbp_jax best SWEEP [--seeds N] [--data-dir FOLDER]
csbp_jax data DATASET [--from FOLDER] [--no-verify] [--read-all] [--data-dir FOLDER] [--FIELD VALUE ...]

train: trains on a data set; the same command again resumes, or says that the run is finished.
evaluate: what a run (its folder) is worth on a part of its data: by class, time and confidence (docs/using.md); or the
  accuracy of a PyTorch checkpoint's weights (docs/weights.md).
predict: the most probable class of each file (picture, frames or events, as the run was trained on), as CSV.
inspect: pictures of a run at work: raster, membranes, rates; its synaptic operations and their energy.
sweep: trains every member of a grid, many at once where that gains, and tabulates them; a stopped one goes on.
best: trains the setting that validation picks of a sweep (its folder) anew, on fresh seeds.
data: prepares and verifies a data set, and tells how many records each part holds.

  --name NAME         the run's folder; by default the data set and a hash of its config
  --fresh             set an old run of this name aside and start anew
  --runs FOLDER       where runs are kept (default: runs)
  --split PART        test (the default), validation or train
  --weights-of EPOCH  last (the default), or chosen: the epoch that validation chose
  --out FILE.csv      where to write it; to the terminal, if left out
  --top K             so many classes a file (default: 1)
  --layer NAME        a layer, or several with commas between (default: all that spike)
  --examples N        so many, evenly over the part (default: 100)
  --grid GRID         e.g. "chaos.z0=0,1,3,10 seed=0:16"; any fields; chaos.z0.TAP for one of several taps
  --chunk N           members that train at once (default: one a device on CPU, else 32)
  --data-parallel N   devices that share each batch (default: 1; the others hold different members)
  --seeds N           how many fresh ones (default: 10)
  --from FOLDER       where the originals (archives, or a tfds folder) lie; downloaded where possible, if left out
  --no-verify         take originals of another size or checksum
  --read-all          read every record once, so that a damaged one is found now and not in training
  --data-dir FOLDER   where prepared data sets are kept (default: data)
  --FIELD VALUE       any field of the config, e.g. --chaos.z0 0 for plain backpropagation;
                      csbp_jax train DATASET --help lists them

Exit codes: 0 done, 2 wrong option, value or file, 3 diverged, 4 checkpoint unusable or disk full, 42 stopped by SIGTERM
(the same command goes on), 130 interrupted by Ctrl-C (likewise); docs/running.md.
"""

import errno
import os
import pathlib
import sys
from collections.abc import Sequence

from csbp_jax import cache, configs
from csbp_jax.config import CheckpointError, ConfigError, Diverged
from csbp_jax.options import HELP, count, one, read, read_field, read_own
from csbp_jax.stop import Stopped, on_signals


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; what goes wrong is told in one line."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv or argv[0] in HELP or (argv[0] in _COMMANDS and argv[1:2] and argv[1] in HELP):
            print(__doc__ + f"\nData sets: {', '.join(configs.NAMES)}")
        elif argv[0] in _COMMANDS:
            cache.use(os.environ, lambda told: print("csbp_jax:", told, file=sys.stderr))
            _COMMANDS[argv[0]](argv[1:])
        else:
            raise ConfigError(f"there is no command {argv[0]!r}; there are {', '.join(_COMMANDS)} (csbp_jax --help)")
    except Diverged as error:
        return _fail(error, 3)
    except CheckpointError as error:
        return _fail(error, 4)
    except Stopped as stopped:
        done = f" after step {stopped.step}, and all is saved" if stopped.step else ""
        return _fail(f"stopped{done}; the same command goes on", stopped.code)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _fail(f"{error}; make room, and the same command goes on" if full else error, 4 if full else 2)
    except ConfigError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        mends = {"data": "can be run again", "sweep": "goes on with what is left"}
        mend = mends.get("".join(argv[:1]), "goes on from the last checkpoint")
        return _fail(f"interrupted; the same command {mend}", 130)
    return 0


def _fail(message, code):
    """In one line: names of files may hold any character."""
    print("csbp_jax:", "\\n".join(str(message).splitlines()), file=sys.stderr)
    return code


def _train(argv):
    options, config = read("train", argv, {"--name": None, "--fresh": False, "--runs": "runs"})
    if config.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    with on_signals() as stop:
        # JAX takes a second to import, and reads XLA_FLAGS when it starts.
        from csbp_jax.train import train

        train(config, name=options.name, fresh=options.fresh, root=options.runs, data_dir=options.data_dir, stop=stop)


def _evaluate(argv):
    named = configs.known("".join(argv[:1])) or any(word.partition("=")[0] == "--weights" for word in argv)
    if named or argv == ["--environment"]:
        options, config = read("evaluate", argv, {})
        from csbp_jax.evaluate import evaluate

        evaluate(config, data_dir=options.data_dir)
        return
    options, words = read_own("evaluate", argv, {"--split": "test", "--weights-of": "last"})
    run = one("evaluate", "RUN", words)
    from csbp_jax.evaluate import evaluate_run

    evaluate_run(run, split=options.split, which=options.weights_of, data_dir=options.data_dir)


def _predict(argv):
    options, words = read_own("predict", argv, {"--out": None, "--top": 1, "--weights-of": "last"})
    run, files = words[:1], words[1:]
    if not files:
        raise ConfigError("FILE: missing; write csbp_jax predict RUN FILE ...")
    from csbp_jax import predict

    top = count("--top", options.top)
    answers = predict.predict(run[0], files, which=options.weights_of, top=top, data_dir=options.data_dir)
    problems = [answer.problem for answer in answers if answer.problem]
    for problem in problems:
        print("csbp_jax:", problem, file=sys.stderr)
    if options.out:
        pathlib.Path(options.out).write_text(predict.table(answers))
    else:
        print(predict.table(answers), end="", flush=True)
    if problems:
        raise ConfigError(f"{len(problems)} of {len(answers)} files could not be read; the others are predicted")


def _inspect(argv):
    own = {"--layer": None, "--examples": 100, "--split": "test", "--weights-of": "last"}
    options, words = read_own("inspect", argv, own)
    run = one("inspect", "RUN", words)
    from csbp_jax.inspection import inspect

    inspect(
        run,
        layers=tuple(options.layer.split(",")) if options.layer else (),
        examples=count("--examples", options.examples) or 100,
        split=options.split,
        which=options.weights_of,
        data_dir=options.data_dir,
    )


def _data(argv):
    options, config = read("data", argv, {"--from": None, "--no-verify": False, "--read-all": False})
    from csbp_jax import data, report

    name, folder = config.data.name, options.data_dir
    with report.stages(report.Console(highlight=False, markup=False)) as show:
        data.prepare(config, vars(options)["from"], folder, verify=not options.no_verify, show=show)
        parts = data.load(config, folder)
        if options.read_all:
            data.read_all(parts, show)
    print(f"{name}: {', '.join(f'{part} {len(source)}' for part, source in parts.items())} records")


def _sweep(argv):
    own = {"--name": None, "--fresh": False, "--sweeps": "sweeps", "--grid": "", "--chunk": None, "--data-parallel": 1}
    options, config = read("sweep", argv, own)
    from csbp_jax import sweep
    from csbp_jax.sweep import grid

    axes = {}
    for field, words in grid.words(options.grid).items():
        grid.check_field(config, field)
        tap = field.removeprefix("chaos.z0.")
        option = field if tap == field else "chaos.z0"
        values = [read_field(config, option, word) for word in words]
        axes[field] = values if tap == field else [one for (one,) in values]
    sweep.run(
        config,
        axes,
        name=options.name,
        fresh=options.fresh,
        root=options.sweeps,
        data_dir=options.data_dir,
        chunk=count("--chunk", options.chunk),
        data_parallel=count("--data-parallel", options.data_parallel) or 1,
    )


def _best(argv):
    options, words = read_own("best", argv, {"--seeds": 10})
    folder = one("best", "SWEEP", words)
    from csbp_jax import sweep

    found = sweep.best(folder, count("--seeds", options.seeds), data_dir=options.data_dir)
    print(f"setting & last epoch & chosen epoch \\\\\n{sweep.table.latex(found)}")


_COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "inspect": _inspect,
    "sweep": _sweep,
    "best": _best,
    "data": _data,
}
