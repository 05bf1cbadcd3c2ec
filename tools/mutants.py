"""Measure which share of seeded faults the tests catch: ``python -m tools.mutants`` (options: ``--help``).

A mutant (``tools/mutator.py``) is caught if one of the tests of its room fails: of ``models``, those in
``tests/models``; of ``chaos.py``, those in each ``test_chaos.py``; and those that ``ROOMS`` names beside it. Only tests
that execute its statement are run, and those of ``make test`` come first: a mutant that a test of ``make test-all``
catches (``"full": true`` in its row) has passed all tests of ``make test``. One run thus gives the share of both
commands. An error on import, a crash and time without end are caught by both. A mutant that this tool's limits end is
undecided, and does not count.

The record has a row for each mutant, written as it ends, so that a later call goes on. ``--tests test`` leaves out what
only ``make test-all`` runs. ``--against RECORD`` tries the mutants of an earlier record whose statements still exist,
and draws others in place of the rest. Compiled programs, and which test executes which lines, are remembered in
``.bench/mutants``. 200 mutants take half an hour of a CPU.
"""

import argparse
import collections
import hashlib
import importlib
import itertools
import json
import operator
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile

from tools import mutator

ROOT = pathlib.Path(__file__).parent.parent
WORK = ROOT / ".bench" / "mutants"
RECORD = ROOT / "tests" / "data" / "mutants.json"
REFUSED, LENGTHS = "test_impossible_arguments.py", "test_lengths.py"
ROOMS = {
    "chaos.py": [REFUSED],
    "losses.py": [REFUSED, LENGTHS, "learner"],
    "controls.py": [REFUSED],
    "xla": [LENGTHS, "neurons"],
    "neurons": [LENGTHS],
    "learner": [LENGTHS, "test_controls.py", "training/test_optimizers.py"],
    "models": [LENGTHS, "export/test_nir_import.py"],
    "training/checkpoint": ["training/test_loop.py"],
    "runtime/seals.py": ["training/test_seals.py"],
    "experiment": ["cli/test_sweep.py"],
}
# Imported before the forks; not the package nor its tests, which are to come from the mutated tree.
PRELOADED = ("flax.linen", "optax", "orbax.checkpoint", "scipy.stats", "matplotlib.pyplot", "rich", "tyro", "pytest")


def keys(rows):
    """Return what the mutants of a record are known by."""
    return {(row["function"], row["original"], row["mutated"]) for row in rows}


def drawn(count, seed, earlier=()):
    """Return ``(room, mutant)`` in a random order, those of an earlier record first in the choice.

    A room has a share by the square root of its number of statements.
    """
    every = {room: mutator.mutants_of(ROOT, f"csbp_jax/{room}") for room in ROOMS}
    roots = {room: len(statements) ** 0.5 for room, statements in every.items()}
    known = keys(earlier)
    result, shares = [], itertools.accumulate(roots.values(), initial=0.0)
    ends = [round(count * share / sum(roots.values())) for share in shares]
    for (room, statements), size in zip(every.items(), map(operator.sub, ends[1:], ends), strict=True):
        chosen = [m for s in statements for m in s if m.key() in known]
        taken = {(m.file, *m.key()[:2]) for m in chosen}
        rng = random.Random(f"{seed} {room}")
        for statement in rng.sample(statements, len(statements)):
            kind = rng.choice(sorted({mutant.kind for mutant in statement}))
            mutant = rng.choice([mutant for mutant in statement if mutant.kind == kind])
            if len(chosen) < size and (mutant.file, *mutant.key()[:2]) not in taken:
                chosen.append(mutant)
        result += [(room, mutant) for mutant in chosen]
    return random.Random(seed).sample(result, len(result))


def copy_tree(to):
    """Copy what is mutated, and the tests; link the rest of the repository."""
    for path in ROOT.iterdir():
        if path.name in ("csbp_jax", "tests"):
            shutil.copytree(path, to / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif not path.name.startswith("."):
            os.symlink(path, to / path.name)


def run_tests(tree, paths, job, limit=resource.RLIM_INFINITY):
    """Run pytest in a fork, in a tree; return its exit code, negative for a signal, and its CPU time in seconds."""
    if not (pid := os.fork()):
        code = 91
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            signal.alarm(30 * max(limit, 0))  # seconds on the clock: others may need the CPU
            os.chdir(tree)
            sys.path.insert(0, str(tree))
            os.environ.update(PYTHONPATH=str(tree), MUTANTS=json.dumps(job | {"programs": str(WORK / "programs")}))
            sys.dont_write_bytecode = limit > 0  # of a mutant, which the next one might take for its own
            with open(WORK / "output", "w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            options = ["-q", "-x"] if limit > 0 else ["-q"]
            options += ["--no-header", "-m", "not slow", "-p", "no:cacheprovider", "-p", "tools.mutant_tests"]
            code = sys.modules["pytest"].main([*options, *map(str, paths)])
        finally:
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def tests_of(room, tree):
    """Return ``{test: {"cpu", "lines", "starts", "full"}}`` of a room's passing tests, from a run without a mutant."""
    path = tree / "csbp_jax" / room
    paths = [tree / "tests" / room] if path.is_dir() else sorted((tree / "tests").rglob(f"test_{path.name}"))
    paths += [tree / "tests" / test for test in ROOMS[room] if tree / "tests" / test not in paths]
    sources = {p: sorted(p.rglob("*.py")) if p.is_dir() else [p] for p in (path, *paths)}
    text = b"".join(file.read_bytes() for p in sources for file in sources[p])
    record = WORK / f"{hashlib.sha256(text).hexdigest()}.json"
    if not record.exists():
        code, seconds = run_tests(tree, paths, {"trace": list(map(str, sources[path])), "out": str(record)})
        print(f"{room}: {seconds:.0f} s of the CPU for all tests, exit code {code}", flush=True)
    return json.loads(record.read_text())


def executes(test, mutant):
    """Whether a test may execute a mutant's statement: lines are not recorded in processes that a test starts."""
    first, last = mutant.span
    return test["starts"] or any(file == mutant.file and first <= line <= last for file, line in test["lines"])


def tried(room, mutant, tree, command):
    """Return the row of a mutant in the record, by the tests of ``make test`` or ``make test-all``."""
    every = tests_of(room, tree)
    run = [name for name, test in every.items() if executes(test, mutant)]
    if command == "test":
        run = [name for name in run if not every[name]["full"]]
    run.sort(key=lambda name: (every[name]["full"], every[name]["cpu"]))
    code, seconds, out = 0, 0.0, WORK / "failed"
    out.write_text("")
    if run:
        mutator.mutate(mutant, tree)
        job = {"first": run, "never": sorted(every.keys() - set(run)), "out": str(out)}
        limit = 60 + int(4 * sum(every[name]["cpu"] for name in run))
        code, seconds = run_tests(tree, sorted({name.split("::")[0] for name in run}), job, limit)
        shutil.copy2(ROOT / mutant.file, tree / mutant.file)
    if code in (3, 5, 90, 91):
        sys.exit(f"{mutant}: pytest ended with exit code {code}; see {WORK / 'output'}")
    undecided = code in (-signal.SIGKILL, -signal.SIGALRM)
    by = out.read_text() or {2: "import", 4: "import", -signal.SIGXCPU: "time"}.get(code, "crash" * bool(code))
    verdict = "undecided" if undecided else "caught" if code else "survived"
    about = dict(zip(mutant._fields[:6], mutant, strict=False))
    full = by in every and every[by]["full"]
    row = {"room": room, **about, "verdict": verdict, "by": by, "full": full}
    return row | {"tests": len(run), "cpu": round(seconds, 1)}


def shares(rows):
    """Return the ``shares_of`` the tests of both commands. Of earlier records, all tests were of ``make test``."""
    without = [row | {"verdict": "survived"} if row.get("full") else row for row in rows]
    return {"test": shares_of(without), "test-all": shares_of(rows)}


def shares_of(rows):
    """Return counts, and the share caught in percent with its 95 % Wilson interval, over all and by room."""
    from scipy import stats

    result = {}
    for room in ("all", *ROOMS):
        counts = collections.Counter(row["verdict"] for row in rows if room in ("all", row["room"]))
        if decided := counts["caught"] + counts["survived"]:
            ends = stats.binomtest(counts["caught"], decided).proportion_ci(0.95, method="wilson")
            percent = [round(100 * x, 1) for x in (counts["caught"] / decided, *ends)]
            result[room] = {**counts, **dict(zip(("share", "low", "high"), percent, strict=True))}
    return result


def write(record, rows):
    """Write a record, one row per line, in place of the last one."""
    part, lines = record.with_suffix(".part"), ",\n".join(map(json.dumps, rows))
    part.write_text(f'{{"shares": {json.dumps(shares(rows))},\n"mutants": [\n{lines}\n]}}\n')
    part.replace(record)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=200, help="number of mutants (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    parser.add_argument("--room", choices=ROOMS, help="try the mutants of this room only")
    tests = "tests that are run: those of make test, or of make test-all (default)"
    parser.add_argument("--tests", choices=("test", "test-all"), default="test-all", help=tests)
    parser.add_argument("--record", type=pathlib.Path, default=RECORD, help="file of the rows (default: %(default)s)")
    parser.add_argument("--against", type=pathlib.Path, help="an earlier record, whose mutants come first")
    options = parser.parse_args()
    earlier = json.loads(options.against.read_text())["mutants"] if options.against else []
    rows = json.loads(options.record.read_text())["mutants"] if options.record.exists() else []
    draw = drawn(options.count, options.seed, earlier + rows)
    current = {mutant.key() for _, mutant in draw}
    rows = [row for row in rows if keys([row]) < current and row["verdict"] != "undecided"]
    done = keys(rows)
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.update(JAX_PLATFORMS="cpu", JAX_ENABLE_COMPILATION_CACHE="false")
    for module in PRELOADED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder).resolve()
        copy_tree(tree)
        for room, mutant in draw:
            if mutant.key() not in done and options.room in (None, room):
                rows.append(row := tried(room, mutant, tree, options.tests))
                print(row["verdict"], row["cpu"], f"{mutant.file}:{mutant.line}", mutant.kind, row["by"], flush=True)
                write(options.record, rows)
    print(json.dumps({"earlier": shares(earlier), "now": shares(rows)} if earlier else shares(rows), indent=1))


if __name__ == "__main__":
    main()
