"""Parts of the benchmark on tiny programs: workers, agreement, pages. Tests never check measured times."""

import json
import pathlib
import re
import subprocess
import sys
from typing import Any
from unittest import mock

import chex
import jax
import numpy as np
import pytest

from benchmarks import (
    convolutions,
    neuron,
    ours,
    ours_convolution,
    ours_runs,
    page,
    peers,
    process,
    run,
    steps,
    sweeps,
    tables,
    targets,
    time_to_accuracy,
)
from benchmarks.neuron import _verdict
from benchmarks.process import TUNABLES, Failed, Worker, in_rounds
from benchmarks.timing import spread, timed
from benchmarks.worker import drawn
from csbp_jax import configs, models
from csbp_jax.config import Neuron, to_json
from tests.support.matching import search

TOY = """
import numpy as np
from benchmarks.worker import Program

VERSIONS = {"toy": "1"}


def double(n):
    print("a library may print")
    values, prepared = [], []
    check = lambda: {"values": np.array(values)}
    stages = [lambda: values.append(2 * prepared.pop()), lambda: sum(range(10_000))]
    return Program(stages, check, {"n": n}, lambda: prepared.append(n))


PROGRAMS = {"double": double}
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker(sys.executable, "toy") as started:
        yield started


def test_a_worker_times_each_stage_and_returns_its_arrays(worker):
    assert worker.versions == {"toy": "1"}
    assert worker.ask(make="double", arguments={"n": 3})["n"] == 3
    clocks = in_rounds({"toy": worker}, rounds=4, calls=5, warm=2)["toy"]
    assert clocks["wall"].shape == clocks["cpu"].shape == (4, 2)
    assert (clocks["wall"] > 0).all()
    assert worker.check()["values"].tolist() == [6] * (1 + 5 * (2 + 4))
    memory = worker.ask(memory=0)
    assert 5 < memory["start_MB"] <= memory["peak_MB"] < 20_000  # in megabytes; a child begins with the peak of pytest


def test_a_worker_that_ends_gives_the_reason(worker):
    with pytest.raises(Failed, match=r"^toy: KeyError: 'triple'$"):
        worker.ask(make="triple", arguments={})


def test_all_programs_are_timed_on_the_cpu(tmp_path, monkeypatch):
    """Also on a machine with a GPU, which JAX would take."""
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    platforms = [process.ENVIRONMENT["JAX_PLATFORMS"]]

    def refuse(line, env, **_):
        platforms.append(env["JAX_PLATFORMS"])
        raise Failed

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(Failed):
        run.first_step(str(tmp_path), str(tmp_path / "cache"))
    with pytest.raises(Failed):
        sweeps.processes(1, 1, lambda line: None)
    with pytest.raises(Failed):
        time_to_accuracy.run(["train"], tmp_path, list, 1)
    assert platforms == ["cpu"] * 4


def test_a_library_that_cannot_be_installed_is_reported_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "REQUIREMENTS", {"nobody": ("nobody==1",)})
    commands: list[list[str]] = []
    lines: list[str] = []

    def run(line, **_):
        commands.append(line[1:4])
        failed = "pip" in line
        return subprocess.CompletedProcess(line, failed, "", "a warning\nno such package\n" if failed else "")

    monkeypatch.setattr(peers.subprocess, "run", run)
    assert peers.pythons(tmp_path / "peers", lines.append) == {}
    assert lines[0].startswith("installing nobody==1 into ") and lines[1] == "nobody is left out: no such package"
    assert commands == [["-m", "venv", str(tmp_path / "peers" / "nobody")], ["-m", "pip", "install"]]


def test_an_installed_library_is_not_installed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "REQUIREMENTS", {"nobody": ("nobody==1",)})
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "installed.txt").write_text("nobody==1")
    assert peers.pythons(tmp_path, pytest.fail) == {"nobody": str(tmp_path / "nobody" / "bin" / "python")}


class NoProcess:
    """A worker that runs nothing, and answers with what it was asked to make."""

    def __init__(self, *_, cache="", **__):
        assert not set(cache) & set(" ,")  # torch would call its compiler with half of the name
        self.arguments: dict[str, Any] = {}

    def ask(self, **request):
        self.arguments = request.get("arguments", self.arguments)
        if "make" in request:
            return {"parameters": 1, "ready_seconds": 1.0} | self.arguments
        return {"peak_MB": 2.0, "start_MB": 1.0}

    def check(self):
        return {name: np.ones(3) for name in ("losses", "waited")}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def rounds_of(**seconds):
    """As ``in_rounds``, of programs with three stages; ``seconds`` of a stage of a program, 4 for all others."""

    def in_rounds(workers, rounds, **_):
        return {
            name: {clock: np.full((rounds, 3), seconds.get(name, 4.0)) for clock in ("wall", "cpu")} for name in workers
        }

    return in_rounds


@pytest.mark.parametrize("layout", peers.LAYOUTS)
def test_spikingjelly_has_the_numbers_of_its_fastest_form(layout, monkeypatch):
    monkeypatch.setattr(steps, "Worker", NoProcess)
    seconds = {"ours": 2.0, f"autotuned, {layout}": 2.5, f"eagerly, {layout}": 3.0}
    monkeypatch.setattr(steps, "in_rounds", rounds_of(**seconds))
    row = steps.measure(steps.TINY, "python", 5)
    peer = {"spikingjelly", "spikingjelly, eagerly"}
    assert row["programs"].keys() == {"ours", "ours with chaos", steps.EXACT, *peer}
    assert [row["programs"][name]["over_ours"]["median"] for name in sorted(peer)] == [1.25, 1.5]
    page = tables.training_steps({"a net": row})
    assert f"| spikingjelly, autotuned, {layout} | 7500.0 (" in page
    assert f"| spikingjelly, eagerly, {layout} | 9000.0 (" in page


def test_a_form_that_does_not_compile_is_left_out_and_named(monkeypatch):
    class Uncompilable(NoProcess):
        def ask(self, **request):
            if request.get("arguments", {}).get("mode"):
                raise Failed("no compiler")
            return super().ask(**request)

    monkeypatch.setattr(steps, "Worker", Uncompilable)
    monkeypatch.setattr(steps, "in_rounds", rounds_of(ours=2.0))
    row = steps.measure(steps.TINY, "python", 5)
    assert row["programs"]["spikingjelly"] == row["programs"]["spikingjelly, eagerly"]
    assert set(row["failed"].values()) == {"no compiler"} and len(row["failed"]) == 4
    assert tables.training_steps({"a net": row}).count(": not compiled (no compiler)") == 4


def test_of_a_library_the_faster_of_eager_and_compiled_counts():
    def row(**over_lif):
        return {name.replace("_", ", "): {"over_lif": spread(np.array([n]))} for name, n in over_lif.items()}

    assert neuron.faster(row(norse=4.0, norse_compiled=1.5), "norse") == "norse, compiled"
    assert neuron.faster(row(norse=4.0), "norse") == "norse"
    assert "not yet measured" in neuron.how({"T=4": row(norse=4.0)})
    assert "the faster counts" in neuron.how({"T=4": row(norse=4.0, norse_compiled=5.0)})


@pytest.mark.parametrize("faster", peers.LAYOUTS)
def test_torch_has_the_numbers_of_the_faster_layout_of_a_convolution(faster, monkeypatch):
    monkeypatch.setattr(convolutions, "Worker", NoProcess)
    monkeypatch.setattr(convolutions, "in_rounds", rounds_of(**{"ours": 2.0, faster: 3.0}))
    monkeypatch.setattr(convolutions, "shapes", lambda config: {((1, 4, 4, 1), (3, 3, 1, 1), 1, 1): 2})
    stages = convolutions.measure({"a net": steps.TINY}, "python", 5)["a net"]["stages"]
    assert {name: n["over_ours"]["median"] for name, n in stages["all"].items()} == {
        "ours": 1.0,
        "XLA by default": 2.0,
        "torch": 1.5,
    }


@pytest.mark.parametrize("how, count", [("alone", 3), ("loop", 3), ("vmap", 1)])
def test_a_run_alone_makes_as_many_steps_as_a_loop_over_members(how, count, monkeypatch):
    run = mock.MagicMock()
    run.train_step.return_value = run.step.return_value = (None, None)
    for name in ("data.load", "compiled.compile_run", "CompiledGroup", "member_mesh"):
        monkeypatch.setattr(f"benchmarks.ours_runs.{name}", mock.MagicMock(return_value=run))
    monkeypatch.setattr(ours_runs.data, "train_batches", lambda *_: iter([{"x": np.zeros((2, 1))}]))
    monkeypatch.setattr(ours_runs.build, "resolve", lambda config, parts: config)
    (once,) = ours_runs.members(to_json(sweeps.DIGITS), 3, how).stages
    once()
    assert run.train_step.call_count + run.step.call_count == count


def test_members_and_a_run_alone_are_compared_by_the_step(monkeypatch):
    monkeypatch.setattr(sweeps, "Worker", NoProcess)
    monkeypatch.setattr(sweeps, "in_rounds", rounds_of(alone=8.0, vmap=2.0))
    row = sweeps.members(5, print, {"digits": sweeps.DIGITS})["digits"]
    assert row["alone_ms"]["median"] == 1e3 * 3 * 8 / row["members"]
    assert (row["loop"]["median"], row["vmap"]["median"]) == (0.5, 0.25)


def test_waiting_is_named_by_the_preset_that_is_run(monkeypatch):
    trained: list[Any] = []

    class Reader(NoProcess):
        def ask(self, **request):
            trained.append(request["arguments"]["config"])

    monkeypatch.setattr(sweeps, "Worker", Reader)
    monkeypatch.setattr(sweeps, "in_rounds", rounds_of())
    rows = sweeps.waiting(3, 2, print)
    assert trained == [to_json(configs.load(name)) for name in rows]
    result = targets.page({"machine": "A", "waiting": rows})
    assert all(f"| waiting for data, {name} | <= 3 % | 8.33 (8.33-8.33) | missed |" in result for name in rows)


@pytest.mark.parametrize("name", ["alif", "sliding_psn"])
def test_the_timed_neuron_is_that_of_the_config(name):
    program = ours.named_neuron((2, 5, 6), name, 0.7)
    program.prepare()
    for stage in program.stages:
        stage()
    built: Any = models.neuron(Neuron(name=name, decay=0.7), 5)
    x, bars = drawn((2, 5, 6)), drawn((2, 5, 6), 1)

    @jax.jit
    def expected(x):
        neuron = built.init_with_output(jax.random.key(0), 1)[0] if name == "sliding_psn" else built
        spikes, pull = jax.vjp(lambda x: neuron(x)[0], x)
        return {"spikes": spikes, "gradient": pull(bars)[0]}

    chex.assert_trees_all_close(program.check(), jax.device_get(expected(x)), atol=1e-6)


def test_rounds_and_spread():
    calls = []
    seconds = timed({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert sorted(calls) == ["a"] * 4 + ["b"] * 4
    assert {len(s) for s in seconds.values()} == {3}
    assert spread(np.array([3.0, 1.0, 2.0])) == {"median": 2.0, "min": 1.0, "max": 3.0}


@pytest.mark.parametrize(
    ("spikes", "gradient", "same"), [(0, 1e-6, "spikes and gradient"), (0, 0.5, "spikes"), (0.3, 0.5, "time only")]
)
def test_what_agrees(spikes, gradient, same):
    assert _verdict({"spikes_differ": spikes, "gradient_differs": gradient}) == same


def test_a_part_joins_only_a_file_of_the_same_size(tmp_path, monkeypatch, capsys):
    """Quick numbers do not join full ones, and a part names the allocator that it was measured with."""
    monkeypatch.setitem(run.PARTS, "dispatch", lambda pythons, quick: {"dispatch": "new"})
    monkeypatch.setattr(page, "write", lambda folder, content: (folder / "README.md").write_text(""))
    file = tmp_path / "bench.json"
    full = {"machine": "A", "allocator": "before", "quick": False, "load": {}, "seconds": {}}
    file.write_text(json.dumps(full))
    with pytest.raises(SystemExit, match="2"):
        run.main(["--quick", "--only", "dispatch", "--out", str(tmp_path)])
    assert f"{file} holds a full run; give another folder" in capsys.readouterr().err
    assert json.loads(file.read_text()) == full
    run.main(["--only", "dispatch", "--out", str(tmp_path)])
    content = json.loads(file.read_text())
    assert content["dispatch"] == "new" and content["allocator"] == "before"
    assert content["allocators"]["dispatch"].startswith(TUNABLES)


def test_a_stopped_benchmark_leaves_the_parts_that_it_did_not_reach(tmp_path, monkeypatch):
    def stop(pythons, quick):
        raise KeyboardInterrupt

    parts = {"dispatch": lambda pythons, quick: {"dispatch": "new"}, "starts": stop, "long": stop}
    monkeypatch.setattr(run, "PARTS", parts)
    file = tmp_path / "bench.json"
    before = {"machine": "A", "quick": False, "load": {}, "seconds": {}, "dispatch": "old", "long": "old"}
    file.write_text(json.dumps(before | {"machines": {"dispatch": "A", "long": "A"}}))
    with pytest.raises(KeyboardInterrupt):
        run.main(["--out", str(tmp_path)])
    content = json.loads(file.read_text())
    assert (content["dispatch"], content["long"]) == ("new", "old")
    assert tables.machines(content) == f"{process.machine()} (long: A)"


def test_targets_are_met_missed_or_not_measured(monkeypatch):
    monkeypatch.setitem(targets.REASONS, "dispatch of a step", "a reason")
    low, high = ({"median": value, "min": value, "max": value} for value in (2.0, 400.0))
    unresolved = {"median": 2.0, "min": 1.0, "max": 6.0}
    result = targets.page({"machine": "A", "dispatch": {"us": high}, "starts": {"cold": low, "warm": unresolved}})
    assert "| dispatch of a step | <= 300 us | 400 (400-400) | missed | dispatch |" in result
    assert "- dispatch of a step: a reason" in result
    assert result.count("| met |") == 1 and result.count("| not resolved, median within |") == 1
    assert result.count("not measured") == len(list(targets.rows())) - 3
    result = targets.page({"machine": "A", "processes": {"times_less": 5.9}})
    assert "| 5.9 | met | processes |" in result


def test_a_page_says_which_parts_were_measured_on_another_machine():
    content = {
        "machine": "A, 2 cores",
        "machines": {"neuron": "A, 2 cores", "steps": "B, 4 cores", "long": "B, 4 cores"},
    }
    assert tables.machines(content) == "A, 2 cores (steps, long: B, 4 cores)"
    assert tables.machines({"machine": "A, 2 cores"}) == "A, 2 cores"


def test_the_convolutions_are_those_of_the_network():
    result = convolutions.shapes(steps.narrow(steps.NETS["SEW-ResNet-18"], 1 / 16))
    assert list(result.items())[:3] == [
        (((4, 64, 64, 3), (7, 7, 3, 4), 2, 3), 1),
        (((16, 16, 16, 4), (3, 3, 4, 4), 1, 1), 4),
        (((16, 16, 16, 4), (3, 3, 4, 8), 2, 1), 1),
    ]
    assert sum(result.values()) == 20  # 17, and 3 of shortcuts


@pytest.mark.parametrize("default", [False, True])
def test_the_timed_convolution_is_one(default):
    """Its gradients are those of its sum with the cotangents."""
    x, kernel, bars = drawn((2, 5, 5, 3)) > 1, drawn((3, 3, 3, 4), 1), drawn((2, 3, 3, 4), 2)

    def weighted(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=names)
        return (out * bars).sum(), out

    gradients, out = jax.grad(weighted, (0, 1), has_aux=True)(x.astype(np.float32), kernel)
    program = ours_convolution.convolution((2, 5, 5, 3), (3, 3, 3, 4), 2, 1, default)
    for stage in program.stages:
        stage()
    expected = dict(zip(("forward", "input", "kernel"), (out, *gradients), strict=True))
    chex.assert_trees_all_close(program.check(), jax.device_get(expected), rtol=1e-5, atol=1e-5)


def test_pages_are_those_of_the_numbers_beside_them(tmp_path):
    """What is published was drawn by this program from its bench.json."""
    published = page.PUBLISHED
    (tmp_path / "bench.json").write_text((published / "bench.json").read_text())
    page.write(tmp_path, json.loads((published / "bench.json").read_text()))
    for name in ("README.md", "tables.md", "targets.md"):
        assert (tmp_path / name).read_text() == (published / name).read_text()


@pytest.mark.parametrize(
    "name",
    ["README", "tables", "targets", *time_to_accuracy.NAMES.values(), "../../../README"],
)
def test_the_pages_say_how_torch_was_run(name):
    """In each sentence with a ratio, of the paragraphs about SpikingJelly."""
    file = page.PUBLISHED / f"{name}.md"
    if not file.exists():
        pytest.skip("not measured yet")
    text = file.read_text()
    assert "compile" in text
    paragraphs = [
        " ".join(part.split()) for part in text.split("\n\n") if "SpikingJelly" in part and part[0] not in "|-"
    ]
    sentences = [sentence for part in paragraphs for sentence in re.split(r"(?<=[.:]) (?=[A-Z*])", part)]
    assert [s for s in sentences if re.search(r"[\d\]] times", s) and not re.search("eagerly|compiled", s)] == []


def test_the_numbers_support_the_rule_of_sweeps_on_cpu():
    """Where a step takes over 3 ms, single members are as fast as single runs, and not slower than vmap."""
    result = json.loads((page.PUBLISHED / "bench.json").read_text())["members"]
    long = {name: row for name, row in result.items() if row["alone_ms"]["median"] > 3}
    assert len(long) >= 3
    for name, row in long.items():
        assert row["loop"]["median"] <= min(1.1, row["vmap"]["median"]), name


def test_a_start_imports_nothing_slow_that_it_does_not_use():
    """SciPy's tests of differences and TensorFlow Datasets were 0.6 of 1.5 CPU-seconds of each command's imports."""
    line = "import sys, csbp_jax.cli.main, csbp_jax.training.loop; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert not {"scipy.stats", "tensorflow_datasets", "matplotlib", "pandas"} & set(done.stdout.split())


def test_the_share_of_the_chaos_term_in_the_docs_is_that_of_the_benchmark():
    shares = [row["chaos_share"] for row in json.loads((page.PUBLISHED / "bench.json").read_text())["steps"].values()]
    medians = [f"{100 * pick(share['median'] for share in shares):.1f}" for pick in (min, max)]
    rounds = [f"{100 * min(n['min'] for n in shares):.1f}", f"{100 * max(n['max'] for n in shares):.1f}"]
    text = " ".join((page.PUBLISHED.parent / "README.md").read_text().split())
    for low, high in (medians, rounds):
        assert f"{low} to {high} %" in text or f"{low} to +{high} %" in text


def test_the_times_of_other_neurons_in_the_docs_are_those_of_the_benchmark():
    text = " ".join((page.PUBLISHED.parents[1] / "neurons.md").read_text().split())
    assert "Most take 1 to 3 times as long as LIF on a CPU, `clif`, `psn` and `masked_psn` up to 6 times" in text
    rows = json.loads((page.PUBLISHED / "bench.json").read_text())["other_neurons"]["rows"].values()
    times = {name: [round(row[name]["over_lif"]["median"]) for row in rows] for name in next(iter(rows))}
    assert {name for name, multiples in times.items() if max(multiples) > 3} == {"clif", "psn", "masked_psn"}
    assert max(map(max, times.values())) == 6


def test_the_step_on_a_device_is_made_with_arguments_that_it_has():
    """Neither file can be imported here: both need torch."""
    folder = pathlib.Path(peers.__file__).parent
    asked = search(r"more = \{(.+)\}", (folder / "on_device.py").read_text())[1]
    taken = search(r"def program\((.+?)\) -> Program", (folder / "torch_step.py").read_text(), re.DOTALL)[1]
    assert {*re.findall(r'"(\w+)":', asked)} <= {*re.findall(r"(\w+):", taken)}
