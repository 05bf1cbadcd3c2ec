"""Train the runs of docs/results/stage_a/plan.md: CSBP against plain backpropagation, tuned alike, on small pictures.

    python -m experiments.stage_a [--worker 0 --workers 1] [--data-dir data] [--out docs/results/stage_a/runs.jsonl]
    python -m experiments.stage_a --stage B [--channels 0.5]
    python -m experiments.stage_a --repeat DRAW [DRAW ...]

CIFAR-10 must have been prepared (make data DATASET=cifar10). Each finished run is a row of the file; a run that is
there is not repeated, so that the command goes on where it ended, also on another machine. Workers share the draws of
stage A, and the seeds of stage B, which needs the rows of A. A run that was stopped goes on after its last epoch.
``--repeat``, which is no part of the plan, trains the first tested run of plain backpropagation and of CSBP in a draw
again, with the same seed and setting, into repeated.jsonl, and measures how well it fits the training pictures.
"""

import argparse
import functools
import itertools
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import configs, data, learner, losses, models
from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer
from csbp_jax.data.device import augment
from csbp_jax.learner import State, optimizer
from csbp_jax.runtime.hardware import compiler_options, quick_options
from csbp_jax.training.checkpoint import checkpoint
from experiments import study

BATCH, EVAL_BATCH = 64, 500
SCREEN, FULL, LARGER = 10, 30, 40
"""Epochs of a run that screens a setting, of all others of stage A, and of stage B."""
DRAWS, SETTINGS, OFF, LAST, SEEDS, UNTUNED = 6, 8, 2, 2, 3, 6
"""Draws; settings of a draw; how many of them are without the term; how many are trained in full; test seeds of a
choice; seeds of an untuned arm."""
LARGER_SEEDS = 5
REPEATED = ("plain", "CSBP")
"""Arms whose runs are repeated."""
ARMS = {"plain": "chaos", "CSBP": "chaos", "drift": "drift"}
"""Arms, and the term of each; that of plain has no strength."""
TESTED = ("test", "untuned", "larger", "repeat")
"""Roles whose runs are tested after each epoch."""
TAPS = ("conv1.membrane", "fc1.dense")
RELEASED_PULL = 15.0 / 4
"""The released z0 is a mean over 64 and 1,024 channels; over a quarter of them, a quarter pulls each channel alike."""
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(1, 1, 1, 1, 3)
STD = np.array([0.2470, 0.2435, 0.2616], np.float32).reshape(1, 1, 1, 1, 3)


class Setting(NamedTuple):
    """What the settings of a draw differ in; ``ratio`` is that of the term's gradient to the task's at step 0."""

    lr: float
    weight_decay: float
    width: float
    ratio: float
    end: float
    """z at the end of training over z0."""


class Run(NamedTuple):
    """One training, by what determines its numbers."""

    term: str
    z0: float
    lr: float
    weight_decay: float
    width: float
    end: float
    epochs: int
    seed: int
    side: int = 16
    channels: float = 0.25
    """Share of the published network's channels."""


class Job(NamedTuple):
    """A run and its part in the plan."""

    role: str
    draw: int | None
    arm: str
    setting: int | None
    run: Run


Splits = dict[str, tuple[jax.Array, jax.Array]]


def settings(draw: int) -> list[Setting]:
    """The settings of a draw, the same for all arms; the term is off in the first ``OFF``."""
    generator = np.random.default_rng([2024, draw])

    def log_uniform(low: float, high: float) -> NDArray[np.float64]:
        return np.exp(generator.uniform(np.log(low), np.log(high), SETTINGS))

    ranges = {
        "lr": (0.03, 0.3),
        "weight_decay": (1e-4, 2e-3),
        "width": (0.5, 2),
        "ratio": (0.01, 1),
        "end": (1e-3, 0.3),
    }
    columns = {name: log_uniform(*ends) for name, ends in ranges.items()}
    columns["ratio"][:OFF] = 0
    return [Setting(*(float(f"{value:.4g}") for value in row)) for row in zip(*columns.values(), strict=True)]


def make_config(run: Run) -> Config:
    """CNN7 with TEBN, with both taps of the released script."""
    return Config(
        seed=run.seed,
        epochs=run.epochs,
        batch_size=BATCH,
        data=Data(name="cifar10"),
        model=Model(
            "cnn7",
            (run.side, run.side, 3),
            time_steps=2,
            width=run.channels,
            norm="tebn",
            neuron=Neuron(surrogate_param=run.width),
        ),
        chaos=Chaos(
            z0=(run.z0,),
            beta=run.end ** (1 / run.epochs),
            taps=TAPS,
            cut=(-10.0, 9.9),
            term=run.term,  # type: ignore[arg-type]
        ),
        optimizer=Optimizer("sgd", lr=run.lr, momentum=0.9, weight_decay=run.weight_decay),
    )


def load(data_dir: str, side: int) -> Splits:
    """Pictures ``[N, side, side, 3]``, means of pixels, and labels of 45,000, 5,000 and 10,000 examples."""
    splits = data.load(configs.load("cifar10_small"), data_dir)
    arrays, factor = {name: study.all_records(source) for name, source in splits.items()}, 32 // side

    def small(x: NDArray[np.uint8]) -> jax.Array:
        means = x.reshape(-1, side, factor, side, factor, 3).mean((2, 4))
        return jnp.asarray(means.round().astype(np.uint8))

    return {name: (small(x), jnp.asarray(y)) for name, (x, y) in arrays.items()}


def normalised(x: jax.Array) -> jax.Array:
    return (x.astype(jnp.float32) / 255 - MEAN) / STD


def augmented(state: State, x: jax.Array) -> jax.Array:
    """Crop and flip pictures ``[B, 1, side, side, 3]`` at random."""
    crop_key, flip_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1))
    padding = x.shape[2] // 8
    x = augment.per_example(lambda key, x: augment.crop(key, x, padding))(crop_key, x)
    return augment.per_example(augment.flip)(flip_key, x)


class Functions(NamedTuple):
    """Compiled functions of a run; the steps take the whole split and the rows of a batch."""

    init: Callable[[jax.Array], State]
    step: Callable[..., tuple[State, dict[str, Any]]]
    evaluate: Callable[..., dict[str, jax.Array]]
    norms: Callable[..., dict[str, jax.Array]]


def functions(config: Config, steps_per_epoch: int) -> Functions:
    tx = optimizer.build(config.optimizer, config.epochs, steps_per_epoch)
    model, loss = models.build(config.model), losses.build(config.loss)
    recipe = learner.Recipe(model, tx, loss, config, steps_per_epoch)

    def batch(state: State, x: jax.Array, y: jax.Array, rows: jax.Array) -> learner.Batch:
        return {"x": normalised(augmented(state, x[rows][:, None])), "y": y[rows]}

    def step(state: State, x: jax.Array, y: jax.Array, rows: jax.Array) -> tuple[State, dict[str, Any]]:
        state, metrics = learner.train_step(recipe, state, batch(state, x, y, rows))
        return state, {name: metrics[name] for name in ("task_loss", "accuracy", "bad_steps")}

    def evaluate(state: State, x: jax.Array, y: jax.Array, rows: jax.Array) -> dict[str, jax.Array]:
        x = normalised(x[rows][:, None])
        return learner.eval_step(recipe, state, {"x": x, "y": y[rows], "mask": jnp.ones(len(rows), bool)})

    def norms(state: State, x: jax.Array, y: jax.Array, rows: jax.Array) -> dict[str, jax.Array]:
        return learner.gradient_norms(learner.gradients(recipe, state, batch(state, x, y, rows)))

    return Functions(
        jax.jit(lambda key: learner.init(recipe, key), compiler_options=quick_options()),
        jax.jit(step, donate_argnums=0, compiler_options=compiler_options()),
        jax.jit(evaluate, compiler_options=compiler_options()),
        jax.jit(norms, compiler_options=quick_options()),
    )


def order(seed: int, epoch: int, count: int) -> NDArray[np.int32]:
    """Rows of the batches of an epoch ``[steps, B]``; the last, smaller batch is dropped."""
    rows = np.random.default_rng([seed, epoch]).permutation(count)[: count // BATCH * BATCH]
    return rows.astype(np.int32).reshape(-1, BATCH)


def train(
    run: Run, splits: Splits, tested: bool, folder: pathlib.Path, *, fitted: bool = False
) -> dict[str, list[float]]:
    """Train; return mean task loss, accuracy (%) and CPU time (s) of each epoch, and those of validation (and test).

    With ``fitted``, there is also the accuracy of the last weights on the training pictures, measured as in a test:
    without augmentation and dropout. The state is saved after each epoch in ``folder``, from which a run that was
    stopped goes on.
    """
    (x, y), evaluated = splits["train"], ("validation", "test")[: 1 + tested]
    of_run = functions(make_config(run), len(y) // BATCH)
    names = ["train_loss", "train_accuracy", "bad"]
    names += [f"{split}{of}" for split in evaluated for of in ("_loss", "")] + ["cpu_seconds"]
    state, history = of_run.init(jax.random.key(run.seed)), {name: np.zeros(run.epochs) for name in names}
    with checkpoint.open_folder(folder, identity=run._asdict()) as saves:
        state, history = saves.restore((state, history)) or (state, history)
        for epoch in range(int(state.step) // (len(y) // BATCH), run.epochs):
            start, metrics = time.process_time(), []
            for rows in order(run.seed, epoch, len(y)):
                state, values = of_run.step(state, x, y, rows)
                metrics.append(values)
            means = jax.tree.map(lambda *values: float(np.mean(values)), *jax.device_get(metrics))
            row = [means["task_loss"], 100 * means["accuracy"], means["bad_steps"]]
            for split in evaluated:
                sums = evaluate(of_run, state, *splits[split])
                row += [sums["loss"] / sums["count"], 100 * sums["correct"] / sums["count"]]
            for name, value in zip(names, [*row, time.process_time() - start], strict=True):
                history[name][epoch] = float(f"{value:.6g}")
            saves.save(epoch, (state, history))
    measures = {name: values.tolist() for name, values in history.items()}
    if fitted:
        sums = evaluate(of_run, state, x, y)
        measures["fitted"] = [float(f"{100 * sums['correct'] / sums['count']:.6g}")]
    return measures


def read(file: pathlib.Path) -> list[dict[str, Any]]:
    """Read the rows of a file, none if there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def evaluate(of_run: Functions, state: State, x: jax.Array, y: jax.Array) -> dict[str, float]:
    batches = np.arange(len(y), dtype=np.int32).reshape(-1, EVAL_BATCH)
    sums = jax.device_get([of_run.evaluate(state, x, y, rows) for rows in batches])
    return {name: float(np.sum([row[name] for row in sums])) for name in sums[0]}


def strength(setting: Setting, seed: int, splits: Splits, side: int = 16, channels: float = 0.25) -> float:
    """The z0 of both taps at which the chaos term's gradient has ``ratio`` times the task's norm at step 0.

    The norms are means over the first eight batches. The drift takes the same z0: it has the same pull at h = 0.
    """
    x, y = splits["train"]
    unit = Run("chaos", 1.0, *setting[:3], setting.end, FULL, seed, side, channels)
    of_run = functions(make_config(unit), len(y) // BATCH)
    state = of_run.init(jax.random.key(seed))
    norms = [jax.device_get(of_run.norms(state, x, y, rows)) for rows in order(seed, 0, len(y))[:8]]
    ratio = np.mean([n["task"] for n in norms]) / np.mean([n["chaos"] for n in norms])
    return float(f"{setting.ratio * ratio:.4g}")


def run_of(
    arm: str, setting: Setting, z0: float, epochs: int, seed: int, side: int = 16, channels: float = 0.25
) -> Run:
    """Return the run of an arm; without the term all arms have the same, which is trained once."""
    term, z0, end = (ARMS[arm], z0, setting.end) if z0 and arm != "plain" else ("chaos", 0.0, 1.0)
    return Run(term, z0, *setting[:3], end, epochs, seed, side, channels)


def jobs_of_draw(draw: int, splits: Splits, rows: dict[Run, Any], strengths: dict[int, float]) -> Iterator[Job]:
    """The jobs of a draw in order; later ones depend on ``rows``, which the caller fills.

    ``strengths`` are the z0 of settings that are known already.
    """
    seed, drawn = 100 + draw, settings(draw)
    z0 = [
        strengths[number] if number in strengths else strength(setting, seed, splits) if setting.ratio else 0.0
        for number, setting in enumerate(drawn)
    ]

    def run(arm: str, number: int, epochs: int, seed: int) -> Run:
        return run_of(arm, drawn[number], z0[number], epochs, seed)

    def validation(arm: str, number: int, epochs: int) -> float:
        accuracy: float = rows[run(arm, number, epochs, seed)]["measures"]["validation"][-1]
        return accuracy

    chosen: dict[str, int] = {}
    for arm in ARMS:
        for number in range(SETTINGS):
            yield Job("screen", draw, arm, number, run(arm, number, SCREEN, seed))
        ranked = sorted(range(SETTINGS), key=lambda number: -validation(arm, number, SCREEN))
        for number in ranked[:LAST]:
            yield Job("tune", draw, arm, number, run(arm, number, FULL, seed))
        chosen[arm] = max(ranked[:LAST], key=lambda number: validation(arm, number, FULL))
    for test_seed in range(1000 + 10 * draw, 1000 + 10 * draw + SEEDS):
        for arm, number in chosen.items():
            yield Job("test", draw, arm, number, run(arm, number, FULL, test_seed))


def untuned_jobs(seed: int) -> Iterator[Job]:
    """The released settings, with and without the term."""
    for arm, z0, end in (("plain", 0.0, 1.0), ("CSBP", RELEASED_PULL, 0.98**200)):
        yield Job("untuned", None, arm, None, Run("chaos", z0, 0.1, 5e-4, 1.0, end, FULL, seed))


def best_settings(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[int, Setting]]:
    """Return the tuning seed and setting of each arm that is best over all draws of stage A, by validation."""
    best: dict[str, tuple[int, Setting]] = {}
    for arm in ARMS:
        of_arm = [row for row in rows if row["role"] == "tune" and row["arm"] == arm]
        row = max(of_arm, key=lambda row: row["measures"]["validation"][-1])
        best[arm] = row["run"]["seed"], settings(row["draw"])[row["setting"]]
    return best


def larger_jobs(rows: Sequence[dict[str, Any]], splits: Splits, channels: float, seeds: range) -> Iterator[Job]:
    """The jobs of stage B: each arm's best setting of stage A, with the z0 that has its ratio on larger pictures."""
    best = best_settings(rows)
    z0 = {
        arm: strength(setting, seed, splits, 32, channels) if setting.ratio and arm != "plain" else 0.0
        for arm, (seed, setting) in best.items()
    }
    for seed in seeds:
        for arm, (_, setting) in best.items():
            yield Job("larger", None, arm, None, run_of(arm, setting, z0[arm], LARGER, seed, 32, channels))


def repeated_jobs(rows: Sequence[dict[str, Any]], draws: Sequence[int]) -> Iterator[Job]:
    """The first tested run of each of ``REPEATED`` in these draws, with its seed and setting."""
    for draw, arm in itertools.product(draws, REPEATED):
        tested = (row for row in rows if (row["role"], row["draw"], row["arm"]) == ("test", draw, arm))
        row = min(tested, key=lambda row: row["run"]["seed"])
        yield Job("repeat", draw, arm, row["setting"], Run(**row["run"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path, default=study.RESULTS / "stage_a" / "runs.jsonl")
    parser.add_argument("--stage", choices="AB", default="A")
    parser.add_argument("--channels", type=float, default=0.5, help="of stage B: share of the network's channels")
    parser.add_argument("--repeat", type=int, nargs="+", choices=range(DRAWS), metavar="DRAW", default=[])
    options = parser.parse_args()
    written = read(options.out)
    if options.repeat:
        repeated = list(repeated_jobs(written, options.repeat))
        options.out = options.out.with_name("repeated.jsonl")
        written = read(options.out)
    rows = {Run(**row["run"]): row for row in written}
    known = {Job(**{name: row[name] for name in Job._fields} | {"run": Run(**row["run"])}) for row in written}
    complete = sum(row["role"] == "test" for row in written) == DRAWS * SEEDS * len(ARMS)
    if options.stage == "B" and not complete and not options.repeat:
        parser.error(f"--stage B: takes its settings from stage A, which is not complete in {options.out}")
    splits = functools.cache(functools.partial(load, options.data_dir))

    def jobs() -> Iterator[Job]:
        if options.repeat:
            yield from repeated
            return
        if options.stage == "B":
            seeds = range(3000 + options.worker, 3000 + LARGER_SEEDS, options.workers)
            yield from larger_jobs(written, splits(32), options.channels, seeds)
            return
        for draw in range(options.worker, DRAWS, options.workers):
            of_draw = [job for job in known if job.draw == draw and job.arm == "CSBP"]
            strengths = {job.setting: job.run.z0 for job in of_draw if job.setting is not None}
            yield from jobs_of_draw(draw, splits(16), rows, strengths)
        for seed in range(2000 + options.worker, 2000 + UNTUNED, options.workers):
            yield from untuned_jobs(seed)

    options.out.parent.mkdir(parents=True, exist_ok=True)
    for job in jobs():
        if job in known:
            continue
        seconds, folder = 0.0, study.WORK / "stage_a" / "-".join(map(str, (*job[:4], job.run.seed)))
        if job.run in rows:
            measures = rows[job.run]["measures"]
        else:
            split, fitted = splits(job.run.side), job.role == "repeat"
            measures = train(job.run, split, job.role in TESTED, folder, fitted=fitted)
            seconds = sum(measures.pop("cpu_seconds"))
        origin = study.provenance("python -m experiments.stage_a")
        row = job._asdict() | {"run": job.run._asdict(), "measures": measures}
        row |= {"cpu_seconds": round(seconds)} | {name: origin[name] for name in ("commit", "versions", "machine")}
        rows[job.run] = row
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        print(*job[:4], {name: values[-1] for name, values in measures.items()}, row["cpu_seconds"], flush=True)


if __name__ == "__main__":
    main()
