"""csbp_jax train DATASET|FILE.py [--name NAME] [--fresh] [--runs FOLDER] [--checkpoints PLACE] [--distributed HOW]
               [--profile START:N] [--data-dir FOLDER] [--FIELD VALUE ...]
csbp_jax evaluate RUN [--split test|validation|train] [--weights-of last|chosen|ema] [--trust]
                  [--data-dir FOLDER]
csbp_jax evaluate DATASET --weights FILE [--data-dir FOLDER] [--FIELD VALUE ...]
csbp_jax predict RUN FILE ... [--out FILE.csv] [--top K] [--weights-of last|chosen|ema] [--trust] [--data-dir FOLDER]
csbp_jax inspect RUN [--layer NAME] [--examples N] [--split test|validation|train] [--weights-of last|chosen|ema]
                 [--trust] [--data-dir FOLDER]
csbp_jax export RUN [--to safetensors|npz|stablehlo|nir] [--out FILE] [--weights-of last|chosen|ema]
                [--trust] [--data-dir FOLDER]
csbp_jax compare RUN RUN ...
csbp_jax report RUN|SWEEP [RUN ...] [--out FILE.html]
csbp_jax tensorboard RUN ... [--follow]
csbp_jax sweep DATASET|FILE.py --grid "FIELD=VALUE,... FIELD=..." [--chunk N] [--data-parallel N] [--name NAME]
               [--fresh] [--sweeps FOLDER] [--data-dir FOLDER] [--FIELD VALUE ...]
csbp_jax lr DATASET|FILE.py [--low RATE] [--high RATE] [--steps N] [--out FOLDER] [--data-dir FOLDER]
            [--FIELD VALUE ...]
csbp_jax best SWEEP [--seeds N] [--trust] [--data-dir FOLDER]
csbp_jax data DATASET|FILE.py [--from FOLDER] [--no-verify] [--read-all] [--data-dir FOLDER] [--FIELD VALUE ...]

train: trains on a data set; the same command again resumes, or says that the run is finished. FILE.py is an experiment
  of your own (docs/own.md), and is run.
evaluate: what a run (its folder) is worth on a part of its data: by class, time and confidence (docs/using.md); or the
  accuracy of a PyTorch checkpoint's weights (docs/weights.md).
predict: the most probable class of each file (picture, frames or events, as the run was trained on), as CSV.
inspect: pictures of a run at work: raster, membranes, rates; its synaptic operations and their energy.
export: a run's network for other programs: its arrays, its function, or its graph for neuromorphic hardware.
compare: finished runs side by side: what differs in their configs, accuracies, paired differences over seeds.
report: runs, or a sweep, as one HTML page that needs nothing else.
tensorboard: the metrics of runs as TensorBoard events, in RUN/tensorboard (docs/scale.md).
sweep: trains every member of a grid, many at once where that gains, and tabulates them; a stopped one goes on.
lr: suggests a learning rate, by a short run at rising rates.
best: trains the setting that validation picks of a sweep (its folder) anew, on fresh seeds.
data: prepares and verifies a data set, and tells how many records each part holds.

  --name NAME         the run's folder; by default the data set and a hash of its config
  --fresh             set an old run of this name aside and start anew
  --runs FOLDER       where runs are kept (default: runs)
  --checkpoints PLACE where checkpoints are kept, in a folder of the run's name: a folder or gs://BUCKET/FOLDER
                      (default: the run's folder; docs/scale.md)
  --distributed HOW   off (the default), auto, or HOST:PORT,n,i: process i of n, and process 0 listens there; all are
                      given the same command otherwise (docs/scale.md)
  --profile START:N   leave a trace of N steps from step START on in the run's folder profile (docs/scale.md)
  --split PART        test (the default), validation or train
  --weights-of EPOCH  last (the default), chosen: the epoch that validation chose, or ema: the moving average
  --trust             run the code of your own that came with the run (RUN/experiment.py), which may do anything
  --to FORM           safetensors (the default), npz, stablehlo or nir
  --out FILE          where to write it; if left out, predict writes to the terminal, export to RUN/export,
                      report to RUN/report.html
  --top K             so many classes a file (default: 1)
  --layer NAME        a layer, or several with commas between (default: all that spike)
  --examples N        so many, evenly over the part (default: 100)
  --follow            go on with what is added till the runs are finished
  --grid GRID         e.g. "chaos.z0=0,1,3,10 seed=0:16"; any fields; chaos.z0.TAP for one of several taps
  --chunk N           members that train at once (default: one a device on CPU, else 32)
  --data-parallel N   devices that share each batch (default: 1; the others hold different members)
  --low, --high RATE  the first and the last one (default: 1e-5, 10), in --steps N steps (default: 100)
  --seeds N           how many fresh ones (default: 10; fewer make a wide interval, whose n is told)
  --from FOLDER       where the originals (archives, or a tfds folder) lie; downloaded where possible, if left out
  --no-verify         take originals of another size or checksum
  --read-all          read every record once, so that a damaged one is found now and not in training
  --data-dir FOLDER   where prepared data sets are kept (default: data)
  --FIELD VALUE       any field of the config, e.g. --chaos.z0 0 for plain backpropagation;
                      csbp_jax train DATASET --help lists them

Exit codes: 0 done, 2 wrong option, value or file, 3 diverged, 4 checkpoint unusable or disk full, 5 another process of
the run has ended, 42 stopped by SIGTERM (the same command goes on), 130 interrupted by Ctrl-C (likewise);
docs/running.md.
"""

import errno
import os
import sys
from collections.abc import Sequence

from csbp_jax import configs
from csbp_jax.cli import commands
from csbp_jax.cli.options import HELP
from csbp_jax.config import CheckpointError, ConfigError, Diverged, Lost
from csbp_jax.runtime import compilation_cache
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training.plugin_file import error_line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; what goes wrong is told in one line."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv or argv[0] in HELP or (argv[0] in _COMMANDS and argv[1:2] and argv[1] in HELP):
            print(__doc__ + f"\nData sets: {', '.join(configs.NAMES)}")
        elif argv[0] in _COMMANDS:
            compilation_cache.enable(os.environ, lambda told: print("csbp_jax:", told, file=sys.stderr))
            _COMMANDS[argv[0]](argv[1:])
        else:
            raise ConfigError(f"there is no command {argv[0]!r}; there are {', '.join(_COMMANDS)} (csbp_jax --help)")
    except Diverged as error:
        return _fail(error, 3)
    except Lost as error:
        return _fail(error, 5)
    except CheckpointError as error:
        return _fail(error, 4)
    except Stopped as stopped:
        done = f" after step {stopped.step}, and all is saved" if stopped.step else ""
        return _fail(f"stopped{done}; the same command goes on", stopped.code)
    except OSError as error:
        if line := error_line(error):
            return _fail(line, 2)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _fail(f"{error}; make room, and the same command goes on" if full else error, 4 if full else 2)
    except ConfigError as error:
        return _fail(error, 2)
    except Exception as error:
        if line := error_line(error):
            return _fail(line, 2)
        raise
    except KeyboardInterrupt:
        mends = {"data": "can be run again", "sweep": "goes on with what is left", "tensorboard": "writes all anew"}
        mend = mends.get("".join(argv[:1]), "goes on from the last checkpoint")
        return _fail(f"interrupted; the same command {mend}", 130)
    return 0


def _fail(message, code):
    """In one line: names of files may hold any character."""
    print("csbp_jax:", "\\n".join(str(message).splitlines()), file=sys.stderr)
    return code


_COMMANDS = {
    "train": commands.train,
    "evaluate": commands.evaluate,
    "predict": commands.predict,
    "inspect": commands.inspect,
    "export": commands.export,
    "compare": commands.compare,
    "report": commands.report,
    "tensorboard": commands.tensorboard,
    "sweep": commands.sweep,
    "lr": commands.lr,
    "best": commands.best,
    "data": commands.data,
}
