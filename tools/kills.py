"""Interrupt commands at random moments, repeat them until they are done, and compare all that they leave.

python -m tools.kills [--rounds N] [--cases CASE ...]

Writes docs/checks/survival/kills.json and the table of the page beside it. In a round, each case begins in an empty
folder, or in a copy of what the case before it left. Its process gets SIGKILL, SIGTERM or SIGINT, after a random share
of the CPU time of an uninterrupted process or at a random one of its file operations; the same command is then repeated
and interrupted again, until a process ends by itself. All files must then be as an uninterrupted process leaves them;
CLOCKS and ``contents`` list the exceptions. Rounds in kills.json are not repeated, unless the package has changed.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

from csbp_jax.config import ConfigError
from csbp_jax.runtime import seals
from csbp_jax.runtime.files import write_json, write_text
from csbp_jax.training.checkpoint import layout, manifest
from csbp_jax.training.metrics_log import read_rows
from experiments.study import provenance
from tests.support.checkpoint_arrays import arrays
from tools.kill_itself import STAGES, stage

ROOT = pathlib.Path(__file__).parents[1]
OUT = ROOT / "docs" / "checks" / "survival"
WORK = ROOT / "runs" / "kills"
CLOCKS = {"seconds", "examples_per_second", "waiting"}
"""Fields of metrics.jsonl and result.json that hold times."""
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (42, -15), signal.SIGINT: (130, -2)}
"""Exit codes after each signal, the second before the command began; or 0, if nothing was left to interrupt."""
MOST = 8
"""Signals in a round, after which its process is left alone."""


class Case(NamedTuple):
    """A command, the case that it continues, its devices, and whether it begins without compiled programs.

    ``{root}`` in the command is the folder of the repository.
    """

    words: str
    after: str = ""
    devices: int = 1
    uncached: bool = False


_NET = "--model.features 2 2 2 --batch-size 128 --epochs 6 --name r"
_RUN = f"digits {_NET} --checkpoint-every 1 --log-every 1"
CASES = {
    "train": Case(f"train {_RUN}"),
    "train, nothing compiled": Case(f"train {_RUN}", uncached=True),
    "train, averaged weights": Case(f"train {_RUN} --optimizer.ema 0.9"),
    "train, accumulation": Case(f"train {_RUN} --optimizer.accumulate 2"),
    "train, a callback with a state": Case(f"train {{root}}/tests/support/smoothed.py {_NET}"),
    "train, events": Case(f"train {_RUN.replace('digits', 'digits_events')}"),
    "train, fsdp on 2 devices": Case(f"train {_RUN} --layout fsdp", devices=2),
    "train, zero1 on 2 devices": Case(f"train {_RUN} --layout zero1", devices=2),
    "sweep": Case(f"sweep digits {_NET} --grid 'chaos.z0=0,3 seed=0:2'"),
    "best": Case("best sweeps/r --seeds 2", after="sweep"),
    "robustness": Case("robustness runs/r --examples 10 --queries 5 --only noise,weight_noise,square", after="train"),
}


class Fault(Exception):
    """Something that must not happen after a signal."""


def start(case: Case, folder: pathlib.Path, itself: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a process in a folder; ``itself`` are NUMBER, SIGNAL and REPORT of ``tools.kill_itself``."""
    cache = folder / "cache" if case.uncached else folder.parents[1] / "cache"
    own = {"XDG_CACHE_HOME": str(cache), "JAX_NUM_CPU_DEVICES": str(case.devices), "JAX_PLATFORMS": "cpu"}
    dropped = {"JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR"}
    environment = {k: v for k, v in os.environ.items() if k not in dropped} | own | {"PYTHONPATH": str(ROOT)}
    module = ("tools.kill_itself", *itself) if itself else ("csbp_jax",)
    line = [sys.executable, "-m", *module, *shlex.split(case.words.format(root=ROOT))]
    with open(folder.with_name("errors"), "wb") as errors:
        return subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors)


def end(process: subprocess.Popen[bytes], folder: pathlib.Path, codes: tuple[int, ...] = (0,)) -> str:
    """Wait for a process; return its exit code, and whether it printed a traceback."""
    try:
        code = process.wait(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Fault("a process has not ended after 10 minutes") from None
    errors = folder.with_name("errors").read_text(errors="replace").strip()
    if code not in codes:
        raise Fault(f"exit code {code}: {errors[errors.rfind(chr(10)) + 1 :]}")
    return f"{code}; traceback" if "Traceback" in errors else f"{code}"


def contents(folder: pathlib.Path) -> dict[str, Any]:
    """All that a case leaves and no clock decides, by file; of checkpoints, the arrays of the newest.

    The checkpoint before may be of the step at which the run was stopped. ``metrics.jsonl.before-TIME`` has the rows of
    a run that was killed before its first checkpoint.
    """
    content: dict[str, Any] = {}
    for file in folder.rglob("*"):
        name = str(file.relative_to(folder))
        if file.name == "checkpoints":
            content[name] = arrays(file)
        elif file.is_dir() or re.search(r"(^|/)(cache/|checkpoints/|metrics\.jsonl\.before-)", name):
            continue
        elif file.name in ("metrics.jsonl", "result.json"):
            rows = read_rows(file) if name.endswith("l") else [seals.parse(file.read_bytes())]
            content[name] = [{key: row[key] for key in row.keys() - CLOCKS} for row in rows]
        else:
            content[name] = file.read_bytes()
    return content


def compare(folder: pathlib.Path, reference: pathlib.Path) -> None:
    """Raise Fault if two folders differ."""
    first, second = contents(folder), contents(reference)
    if names := sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name)):
        raise Fault(f"differs from an uninterrupted process in {', '.join(names)}")


def begin(folder: pathlib.Path) -> pathlib.Path:
    """Make the folder of a case, in which no process of it has run."""
    shutil.rmtree(folder, ignore_errors=True)
    if not (after := CASES[folder.parent.name].after):
        folder.mkdir(parents=True)
        return folder
    uninterrupted(folder.parents[1] / after)
    return pathlib.Path(shutil.copytree(folder.parents[1] / after / "reference", folder))


def uninterrupted(home: pathlib.Path) -> dict[str, Any]:
    """Run a case twice without signals; return the second's CPU seconds and number of file operations."""
    file, report = home / "uninterrupted.json", home / "report"
    if not file.exists():
        for name in ("reference", "again"):
            folder, before = begin(home / name), sum(os.times()[2:4])
            end(start(CASES[home.name], folder, ("-1", "SIGKILL", str(report))), folder)
            seconds = sum(os.times()[2:4]) - before  # of ended child processes
        compare(home / "again", home / "reference")
        write_json(file, {"seconds": seconds, "operations": int(report.read_text().split()[1])})
    return dict(json.loads(file.read_text()))


def interrupt(folder: pathlib.Path, rng: random.Random) -> str:
    """Start a process and interrupt it: ``SIGNAL; STAGE; CODE``, or nothing if it ended before."""
    case, moments, report = CASES[folder.parent.name], uninterrupted(folder.parent), folder.with_name("report")
    sent, began = rng.choice(list(CODES)), time.time()
    if rng.random() < 0.5:
        operation = rng.randrange(rng.randrange(moments["operations"]) + 1)  # rather early: what is left may be little
        code = end(start(case, folder, (str(operation), sent.name, str(report))), folder, (0, *CODES[sent]))
        word, _, reached = report.read_text().partition(" ")
        interrupted = word == "signal"
    else:
        ticks, process = rng.uniform(0, moments["seconds"]) * os.sysconf("SC_CLK_TCK"), start(case, folder)
        times = pathlib.Path(f"/proc/{process.pid}/stat")
        while process.poll() is None and sum(map(int, times.read_text().rpartition(")")[2].split()[11:13])) < ticks:
            time.sleep(0.02)
        reached, interrupted = stage(folder, began), process.poll() is None
        process.send_signal(sent)
        code = end(process, folder, (0, *CODES[sent]))
    if not interrupted and code != "0":
        raise Fault(f"code {code} without a signal")
    return f"{sent.name}; {reached}; {code}" if interrupted else ""


def newest_checkpoint(folder: pathlib.Path, before: int) -> int:
    """Check all checkpoints, of which none may be lost; return the step of the newest."""
    newest = -1
    for store in folder.glob("runs/r/checkpoints"):
        for newest, path in layout.complete(store).items():
            if problem := manifest.verify(path):
                raise Fault(f"checkpoint of step {newest}: {problem}")
    if newest < before:
        raise Fault(f"the newest checkpoint is of step {newest}, and was of step {before}")
    return newest


def run_round(folder: pathlib.Path, rng: random.Random, record: dict[str, Any]) -> None:
    """Interrupt a case until it is done, and add to the record what happened."""
    events, newest = collections.Counter[str](), -1
    try:
        begin(folder)
        while events.total() < MOST and (event := interrupt(folder, rng)):
            events[event] += 1
            newest = newest_checkpoint(folder, newest)
        if events.total() == MOST:
            end(start(CASES[folder.parent.name], folder), folder)
        compare(folder, folder.with_name("reference"))
        shutil.rmtree(folder)
        record["equal"] += 1
    except (Fault, ConfigError, OSError, ValueError) as fault:
        record["faults"].append(f"{folder.name}, after {events.total()} signals: {fault}")
    record["rounds"] += 1
    record["signals"] = dict(sorted((events + collections.Counter(record["signals"])).items()))


def table(content: dict[str, Any]) -> str:
    """The record in Markdown."""
    columns = [*(sent.name for sent in CODES), *STAGES, "rounds", "equal"]
    lines, total = [f"| command | {' | '.join(columns)} |", "|---" * 10 + "|"], collections.Counter[str]()
    for name, record in content["cases"].items():
        words = [word for event, times in record["signals"].items() for word in event.split("; ") * times]
        counts = collections.Counter(words) + collections.Counter(rounds=record["rounds"], equal=record["equal"])
        total += counts
        lines.append(f"| {name} | {' | '.join(str(counts[column]) for column in columns)} |")
    lines.append(f"| all | {' | '.join(str(total[column]) for column in columns)} |")
    faults = [f"- {name}: {fault}" for name, record in content["cases"].items() for fault in record["faults"]]
    text = f"{sum(total[sent.name] for sent in CODES)} signals, {content['cpu_seconds'] / 60:.0f} CPU minutes. "
    text += f"After {total['0']} of them the process still ended by itself, with code 0; {total['traceback']} led to a "
    return "\n".join([*lines, "", f"{text}traceback on stderr. Faults: {len(faults) or 'none'}.", *faults])


def main(arguments: list[str] | None = None) -> None:
    """Run the rounds that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in all, those of earlier calls included")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, as do its children
    sources = [file.read_bytes() for file in sorted((ROOT / "csbp_jax").rglob("*.py"))] + [repr(CASES).encode()]
    code, file = hashlib.sha256(b"".join(sources)).hexdigest()[:16], OUT / "kills.json"
    content = json.loads(file.read_text()) if file.exists() else {}
    if content.get("code") != code:
        content = {"origin": provenance("python -m tools.kills"), "code": code, "cpu_seconds": 0.0, "cases": {}}
    for number in range(options.rounds):
        for name in options.cases:
            record = content["cases"].setdefault(name, {"rounds": 0, "equal": 0, "signals": {}, "faults": []})
            if record["rounds"] == number:
                before, rng = sum(os.times()[:4]), random.Random(f"{name} {number}")
                run_round(WORK / code / name / f"round-{number}", rng, record)
                content["cpu_seconds"] += sum(os.times()[:4]) - before
                write_json(file, content)
                print(f"{name}, round {number}: {sum(record['signals'].values())} signals", flush=True)
    block, page = re.compile("(?<=<!-- python -m tools.kills -->\n).*?(?=<!-- end -->)", re.DOTALL), OUT / "README.md"
    write_text(page, block.sub(lambda _: f"\n{table(content)}\n\n", page.read_text()))
    if any(record["faults"] for record in content["cases"].values()):
        sys.exit(f"{page}: there are faults")


if __name__ == "__main__":
    main()
