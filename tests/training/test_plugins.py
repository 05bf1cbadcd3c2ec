"""Experiments of a user's own, outside the package: trained, resumed, swept, evaluated; never run without a word."""

import copy
import dataclasses
import functools
import json
import pathlib
import re
import shutil
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import csbp_jax
from csbp_jax import chaos, configs, models, neurons, surrogate
from csbp_jax.cli import main
from csbp_jax.config import Chaos, Config, ConfigError, Model, Neuron, Optimizer, flatten, replaced, to_json
from csbp_jax.data.source import ArraySource
from csbp_jax.data.user import arrays
from csbp_jax.evaluation import evaluate, inspection, predict
from csbp_jax.evaluation.robustness.programs import programs_of
from csbp_jax.experiment import Experiment, Training, fields
from csbp_jax.export import export
from csbp_jax.losses import rate_cross_entropy
from csbp_jax.neurons.recurrent import Feedback
from csbp_jax.runs import restore
from csbp_jax.runtime import sharding
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training import build, compiled, loop, plugin_file, run_dir, run_json
from csbp_jax.training.config_view import ConfigView
from csbp_jax.training.plugins import PARTS, PLUGINS, plugin_run_name
from tests.support import shared_programs
from tests.support.small_runs import QUIET, of_grid
from tests.support.stops import After

pytestmark = pytest.mark.usefixtures("no_figures", "one_compilation_per_config")
ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_experiment.py"
PAGE = (ROOT / "docs" / "own.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
*FILE, FROM_PYTHON, LINEN = BLOCKS
LINES = "\n\n".join(FILE)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """``(folder, file, mark, result)``: a run of the example, by the command line; its code marks each time it runs."""
    folder = tmp_path_factory.mktemp("own")
    file, mark = folder / "mine.py", folder / "mark"
    mark.write_text("")
    file.write_text(EXAMPLE.read_text() + f'\nwith open({str(mark)!r}, "a") as mark:\n    mark.write("x")\n')
    line = ["train", str(file), "--name", "r", "--epochs", "2", "--runs", str(folder), "--data-dir", str(folder)]
    assert main.main(line) == 0
    return folder, file, mark, run_json.read_result(folder / "r")


def ran(mark):
    return len(mark.read_text())


def load(folder, text):
    """The config and the parts of a file with this text."""
    (folder / "own.py").write_text(text)
    return plugin_file.load_file(folder / "own.py")


# --- a run of one's own -------------------------------------------------------------------------------------------


@pytest.mark.full
def test_the_example_learns(trained_run):
    folder, file, _, result = trained_run
    assert result["last"]["epoch"] == 2 and result["last"]["test_accuracy"] > 0.8
    about = json.loads((folder / "r" / "config.json").read_text())
    assert about["own"]["parts"] == ["data", "neuron"] and about["own"]["file"] == str(file)
    assert (folder / "r" / "experiment.py").read_bytes() == file.read_bytes()
    assert about["config"]["model"]["classes"] == 2 and about["config"]["model"]["input_shape"] == [20]


@pytest.mark.full
def test_it_resumes_bit_for_bit(trained_run, tmp_path):
    folder, file, _, result = trained_run
    config, parts = plugin_file.load_file(file)
    options = {"own": parts, "name": "r", "root": tmp_path, "data_dir": folder, "console": QUIET()}
    with pytest.raises(Stopped):
        loop.train(replaced(config, "epochs", 2), stop=After(4), **options)
    again = loop.train(replaced(config, "epochs", 2), **options)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


def test_its_neuron_is_that_of_the_file(trained_run):
    """In float64 by hand; and it is not the package's."""
    _, file, _, _ = trained_run
    config, parts = plugin_file.load_file(file)
    x = np.random.default_rng(0).normal(0.6, 0.7, (3, 8, 4))
    v, a, spikes = np.zeros((3, 4)), np.zeros((3, 4)), []
    for t in range(8):
        u = 0.25 * v + x[:, t]
        spikes.append((u > 1 + 0.5 * a).astype(float))
        v, a = (1 - spikes[-1]) * u, 0.9 * a + spikes[-1]
    expected = np.stack(spikes, axis=1)
    assert parts.neuron
    np.testing.assert_array_equal(jax.jit(parts.neuron(config))(x.astype(np.float32))[0], expected)
    of_package: Any = models.neuron(config.model.neuron)
    assert (np.asarray(jax.jit(of_package)(x.astype(np.float32))[0]) != expected).any()


def test_its_neuron_carries_all_of_its_state():
    config, parts = plugin_file.load_file(EXAMPLE)
    assert parts.neuron
    neuron = jax.jit(parts.neuron(config))
    x = 2 * np.random.default_rng(0).random((3, 8, 4)).astype(np.float32)
    first, state = neuron(x[:, :3])
    second, _ = neuron(x[:, 3:], state)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), neuron(x)[0])


def test_reading_it_runs_nothing_without_trust(trained_run, tmp_path, capsys):
    folder, _, mark, _ = trained_run
    before = ran(mark)
    np.save(tmp_path / "a.npy", np.zeros((8, 20)))
    run = str(folder / "r")
    for line in (["evaluate", run], ["predict", run, str(tmp_path / "a.npy")], ["inspect", run], ["best", run]):
        assert main.main(line) == 2
    reported = capsys.readouterr().err.splitlines()
    assert all(
        f"reading it runs the code of {run}/experiment.py" in line and "--trust" in line for line in reported[:3]
    )
    with pytest.raises(ConfigError, match="give --trust"):
        csbp_jax.load(run)
    assert ran(mark) == before
    csbp_jax.load(run, trust=True)
    assert ran(mark) == before + 1


def test_it_is_evaluated_inspected_and_predicts(trained_run, tmp_path):
    folder, _, _, result = trained_run
    options = {"trust": True, "data_dir": folder}
    reported = evaluate.evaluate_run(folder / "r", console=QUIET(), **options)
    assert (
        reported["accuracy"] == pytest.approx(result["last"]["test_accuracy"], abs=1e-9)
        and not reported["data_changed"]
    )
    apply, variables, _ = csbp_jax.load(folder / "r", trust=True)
    record = np.load(folder / "bursts.npz")["x"][520]
    np.save(tmp_path / "a.npy", record)
    np.save(tmp_path / "b.npy", record[:5])
    np.save(tmp_path / "c.png", record)
    files = [tmp_path / name for name in ("a.npy", "b.npy", "c.png.npy")]
    good, short, _ = predict.predict(folder / "r", files, **options)
    logits = jax.jit(apply)(variables, jnp.asarray(record[None], jnp.float32))[0].mean(1)
    assert good.labels == [str(int(logits.argmax()))]
    assert good.probabilities[0] == pytest.approx(float(jax.nn.softmax(logits).max()), rel=1e-4)
    assert "is (5, 20) with its time steps, but this run's records are (8, 20)" in short.problem
    restored = restore.restore(folder / "r", trust=True)
    seen = inspection.inspect(restored, examples=4, data_dir=folder, console=QUIET())
    assert seen["layers"]["fc1"]["neurons"] == 16


def test_a_changed_copy_is_refused_and_not_run(trained_run, tmp_path):
    run = shutil.copytree(trained_run[0] / "r", tmp_path / "r")
    before = ran(trained_run[2])
    with open(run / "experiment.py", "a") as file:
        file.write("# more\n")
    with pytest.raises(ConfigError, match=r"experiment.py: is not the file that the run began with"):
        csbp_jax.load(run, trust=True)
    assert ran(trained_run[2]) == before


def test_a_changed_file_names_another_run(trained_run, tmp_path):
    file, other = trained_run[1], tmp_path / "mine.py"
    other.write_text(file.read_text() + "# changed\n")
    names = {
        plugin_run_name(config, parts) for config, parts in (plugin_file.load_file(file), plugin_file.load_file(other))
    }
    assert len(names) == 2 and all(re.fullmatch("mine-[0-9a-f]{8}", name) for name in names)


@pytest.mark.slow
def test_a_sweep_of_it_is_tabulated(trained_run, tmp_path):
    folder, file, _, _ = trained_run
    options = ["--data-dir", str(folder)]
    line = ["sweep", str(file), "--grid", "seed=0,1", "--name", "s", "--sweeps", str(tmp_path), "--epochs", "1"]
    assert main.main([*line, *options]) == 0
    rows = csbp_jax.runs.RunTable.read(tmp_path / "s").frame
    assert len(rows) == 2 and all(rows["last_test_accuracy"] > 0.5)


@pytest.mark.parametrize("with_feedback", [False, True])
def test_a_neuron_and_a_term_may_fit_only_the_tensors_that_they_get(with_feedback):
    config = Config(model=Model(name="dense", features=(16, 16)), chaos=Chaos(z0=(1.0,), taps=("fc1.membrane",)))

    def neuron(config):
        cell = neurons.LIF(jnp.linspace(0.1, 0.9, 16))
        return Feedback(cell, jnp.eye(16)) if with_feedback else cell

    def term(config):
        return lambda h, target, scale, *, cut, reduce: jnp.einsum("bc->", h - jnp.linspace(0.5, 0.8, 16)[None])

    config = config.replace(**{"model.classes": 3, "model.input_shape": (5,), "batch_size": 8})
    source = ArraySource(np.zeros((8, config.model.time_steps, 5), np.float32), np.zeros(8, np.int32), 3)
    run = compiled.compile_run(config, source, 10, csbp_jax.Own(neuron=neuron, term=term), sharding.data_parallel(1))
    assert run.trace()["chaos_loss"].shape == ()
    recipe: Any = run.recipe
    value = recipe.term(jnp.ones((2, 16)), 0.5, 1.0, cut=None, reduce="mean")
    assert float(value) == pytest.approx(2 * 16 * 0.35)


def test_runs_share_a_compilation_only_where_no_function_could_read_their_difference(trained_run):
    config, parts = plugin_file.load_file(trained_run[1])
    configs = of_grid(config, {"model.neuron.decay": [0.2, 0.5], "optimizer.lr": [0.1, 0.2]})
    taking = dataclasses.replace(parts, neuron=lambda config, hparams: parts.neuron(config))  # type: ignore[misc]
    groups = [len({fields.compile_group(c, own) for c in configs}) for own in (parts, taking, csbp_jax.Own())]
    assert groups == [4, 2, 1]
    assert len({fields.compile_group(c, parts) for c in of_grid(config, {"seed": [0, 1]})}) == 1


def scaled_loss(strength):
    """Parts whose loss is multiplied by a run's own strength, which a parameter ``hparams`` or the config holds."""

    def times(z0):
        return lambda logits, labels, where=None: (1 + z0) * rate_cross_entropy(logits, labels, where=where)

    def traced(config, hparams):
        return times(hparams["z0"]["fc1.membrane"])

    return csbp_jax.Own(loss=traced if strength == "traced" else lambda config: times(config.chaos.z0[0]))


@pytest.mark.full
@pytest.mark.parametrize("strength", ["traced", "read"])
def test_each_member_gets_its_own_value_as_the_run_alone_does(strength, tmp_path):
    config = configs.load("digits").replace(
        **{"epochs": 1, "batch_size": 512, "model.name": "dense", "model.features": (4,), "model.time_steps": 2},
        **{"chaos.taps": ("fc1.membrane",), "chaos.z0": 1.0},
    )
    own = scaled_loss(strength)
    arms = {str(z0): {"chaos.z0": z0} for z0 in (0.0, 3.0)}
    table = Experiment(Training(config, own), arms, seeds=[0, 1]).run(tmp_path / "e", console=QUIET()).frame
    losses = table[table["seed"] == 1].set_index("arm")["last_test_loss"]
    for arm, changes in arms.items():
        alone = loop.train(config.replace(seed=1, **changes), own=own, name=arm, root=tmp_path, console=QUIET())
        assert losses[arm] == pytest.approx(alone["last"]["test_loss"], rel=1e-5)
    assert losses["3.0"] > 3 * losses["0.0"]  # about 4 times as large


def test_of_a_config_that_several_runs_share_their_differences_cannot_be_read():
    config = Config()
    seen: Any = ConfigView(config, build.TRACED)
    for field in build.TRACED:
        with pytest.raises(AttributeError, match=f"^{field}: runs that differ in it share this function"):
            functools.reduce(getattr, field.split("."), seen)
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.seed = 1
    assert isinstance(seen, Config) and seen.model == config.model and seen.chaos.taps == config.chaos.taps
    changed = seen.replace(epochs=3, **{"data.name": "digits"})  # such as for data.load
    readable = {name: value for name, value in flatten(config).items() if name not in build.TRACED}
    assert changed.epochs == 3 and flatten(changed) == readable | {"epochs": 3, "data.name": "digits"}
    for view in (changed, copy.copy(seen)):
        with pytest.raises(AttributeError, match=r"^seed: "):
            _ = view.seed
    with pytest.raises(AttributeError, match=r"^optimizer\.lr: "):
        dataclasses.replace(seen.optimizer, momentum=0.5)
    section: Any = ConfigView(config, ["model.neuron.levels"]).model
    with pytest.raises(AttributeError, match=r"^'Neuron' object has no attribute 'level'$"):
        _ = section.neuron.level
    assert isinstance(section.neuron, Neuron) and section.neuron.most_spikes == 1 and repr(seen) == repr(config)
    assert config.chaos.z0 == Config().chaos.z0 and config.seed == 0


def test_runs_share_their_programs_but_for_what_a_program_depends_on():
    model = Model(name="dense", input_shape=(5,), classes=3, time_steps=2, features=(4,))
    constant = Optimizer(schedule="constant")
    config = Config(model=model, batch_size=8, chaos=Chaos(z0=(1.0,), taps=("fc1.membrane",)), optimizer=constant)
    source = ArraySource(np.zeros((8, 2, 5), np.float32), np.zeros(8, np.int32), 3)

    def program(own=None, **changes):
        own = own or csbp_jax.Own()
        return compiled.compile_run(config.replace(**changes), source, 1, own).train_step

    first, own = program(), scaled_loss("read")
    shared = {"seed": 3}, {"chaos.z0": 0.0}, {"optimizer.lr": 0.5}, {"log_every": 7}, {"epochs": 9}
    assert all(program(**changes) is first for changes in shared)
    other = {"model.neuron.decay": 0.9}, {"epochs": 9, "optimizer.schedule": "cosine"}, {"chaos.reduce": "sum"}
    assert all(program(**changes) is not first for changes in other)
    assert program(own, seed=3) is program(own) is not program(own, **{"chaos.z0": 0.0})
    assert program(own, epochs=9) is not program(own)  # an own function may read any field, a decay over all epochs
    taking = scaled_loss("traced")
    assert program(taking, **{"chaos.z0": 0.0}) is program(taking) is not program(taking, epochs=9)
    state = compiled.compile_run(config.replace(**{"chaos.z0": 0.25}), source, 1).init(jax.random.key(0))
    assert float(state.hparams["z0"]["fc1.membrane"]) == 0.25


# --- the page -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """``(folder, names)``: all that the page's Python defines, the run that it trained among it."""
    folder, names = tmp_path_factory.mktemp("page"), {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(LINES + "\n" + FROM_PYTHON, "docs/own.md", "exec"), names)
    return folder, names


def test_the_page_defines_all_plugins(tmp_path):
    """And they fit into a training step."""
    config, own = load(tmp_path, LINES)
    assert own.plugins == PLUGINS
    resolved = replaced(replaced(config, "model.classes", 3), "model.input_shape", (20,))
    assert type(build.build_recipe(resolved, own, 4).model).__name__ == "Skip"


def test_the_neuron_of_the_page_is_the_lif_that_it_names(tmp_path, x64):
    config, own = load(tmp_path, LINES)
    lif = neurons.LIF(config.model.neuron.decay, spike=surrogate.arctan(3.0), reset="soft")
    x = 2 * np.random.default_rng(0).normal(size=(3, 9, 5))

    def with_gradient(neuron):
        def outputs_and_gradient(x):
            outputs, pullback = jax.vjp(neuron, x)
            return outputs, pullback((x, x[:, 0]))

        return jax.jit(outputs_and_gradient)(x)

    assert own.neuron
    chex.assert_trees_all_close(with_gradient(own.neuron(config)), with_gradient(lif), rtol=1e-12)


@pytest.mark.full
def test_the_learned_neuron_of_the_page_learns_a_decay_for_each_channel(tmp_path):
    config, own = load(tmp_path, f"{LINES}\n\ndef neuron(config):\n    return Learned()\n")
    loop.train(config, own=own, name="learned", root=tmp_path, console=QUIET())
    params = restore.restore(tmp_path / "learned", trust=True).variables["params"]
    decays = [leaf for path, leaf in jax.tree.leaves_with_path(params) if "decay" in jax.tree_util.keystr(path)]
    assert [decay.shape for decay in decays] == [(16,), (16,)]
    assert all(len(np.unique(decay)) > 8 and 0.3 < decay.min() < 0.5 < decay.max() < 0.7 for decay in decays)


@pytest.mark.full
def test_the_three_lines_in_a_linen_model_add_the_term_of_its_membrane():
    names: dict[str, Any] = {}
    exec(compile(LINEN, "docs/own.md", "exec"), names)
    x, params, loss, y = names["x"], names["params"], names["loss"], np.arange(8)

    def term(params):
        dense = params["Dense_0"]
        _, membrane = neurons.lif(x @ dense["kernel"] + dense["bias"][None, None], decay=0.5)
        return 0.1 * chaos.term(membrane, reduce="neuron")

    faded = jax.jit(jax.value_and_grad(loss))(params, x, y, step=10**6)
    added = jax.tree.map(np.add, faded, jax.jit(jax.value_and_grad(term))(params))
    chex.assert_trees_all_close((names["value"], names["gradient"]), added, rtol=1e-5, atol=1e-7)
    assert names["value"] > faded[0] + 0.5


@pytest.mark.full
def test_every_command_takes_the_page_whose_neuron_is_a_function(tmp_path, monkeypatch, capsys):
    """Without ``trace``, it gives spikes, and only the membranes before reset are missing."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("page.py").write_text(LINES)
    config, own = plugin_file.load_file("page.py")
    assert own.neuron and own.data and not hasattr(own.neuron(config), "trace")
    x, y = own.data(config, "")["test"]
    np.save("x.npy", x[0])

    def run(line):
        code = main.main(line.split())
        return code, *capsys.readouterr()

    commands = "evaluate RUN", "predict RUN x.npy", "inspect RUN", "export RUN --to stablehlo", "export RUN --to nir"
    assert run("train page.py --name r")[0] == 0
    evaluated, predicted, inspected, exported, refused = (
        run(command.replace("RUN", "runs/r --trust")) for command in commands
    )
    assert [done[0] for done in (evaluated, predicted, inspected, exported)] == [0] * 4
    apply, variables, _ = csbp_jax.load("runs/r", trust=True)
    logits, aux = jax.jit(apply)(variables, jnp.asarray(x, jnp.float32))
    reported = json.loads(pathlib.Path("runs/r/evaluation-test-last.json").read_text())
    assert reported["accuracy"] == pytest.approx((logits.mean(1).argmax(-1) == y).mean())
    assert reported["rates"] == pytest.approx(jax.tree.map(float, aux.rates)) and set(aux.rates) == {"fc1", "fc2"}
    assert f"x.npy,{logits[0].mean(0).argmax()}," in predicted[1]
    assert "membranes    not of fc1, fc2, whose neuron has no method trace (docs/own.md)\n" in inspected[1]
    assert pathlib.Path("runs/r/export/last.stablehlo").exists()
    line = "csbp_jax: fc1: its neuron (function) is not one of LIF, IF and PLIF; NIR cannot express that, export it as"
    assert refused[0] == 2 and refused[2] == f"{line} stablehlo\n"
    assert run("sweep page.py --grid chaos.z0=0,1 --name s")[0] == 0
    assert pathlib.Path("sweeps/s/runs.csv").read_text().count("\n") == 3


@pytest.mark.full
def test_the_page_shows_a_module_of_another_kind_that_trains(tmp_path):
    model = "def model(config, neuron):\n    return Plain(neuron, config.model.classes, config.model.time_steps)\n"
    config, own = load(tmp_path, f"{LINES}\n\n{model}")
    result = loop.train(config, own=own, name="plain", root=tmp_path, console=QUIET())
    assert result["gradient_norms"]["chaos"] > 0 and result["last"]["test_count"] == 100
    evaluated = evaluate.evaluate_run(tmp_path / "plain", trust=True, console=QUIET())
    assert evaluated["accuracy"] == pytest.approx(result["last"]["test_accuracy"], abs=1e-9)
    assert evaluated["rates"] == {}
    restored = restore.restore(tmp_path / "plain", trust=True)
    # It has a neuron with a surrogate, but is not called with another one.
    assert programs_of(restored, events=True).surrogates == ("own",)
    with pytest.raises(ConfigError, match=r"inspect: the network does not give .* of fc1; it needs to be a .*Network"):
        inspection.inspect(restored, console=QUIET())

    def without_rates(*arguments, **options):
        logits, aux = restored.apply(*arguments, **options)
        return logits, dataclasses.replace(aux, rates={})

    with pytest.raises(ConfigError, match="inspect: the network does not give spikes of any layer; it"):
        inspection.inspect(restored._replace(apply=without_rates), console=QUIET())


CONVOLUTIONS_ON_DIGITS = """
import dataclasses

del data
chaos_of_conv1 = Chaos(z0=(1.0,), taps=("conv1.membrane",))
config = dataclasses.replace(config, data=Data(name="digits"), chaos=chaos_of_conv1)


def model(config, neuron):
    return Small(classes=config.model.classes, time_steps=config.model.time_steps, neuron=neuron)
"""


@pytest.mark.full
def test_the_convolutional_network_of_the_page_trains_on_a_data_set_of_the_package(tmp_path):
    narrow, count = re.subn(r"conv\((32|64), name=", "conv(4, name=", LINES)
    assert count == 2
    config, own = load(tmp_path, narrow + CONVOLUTIONS_ON_DIGITS)
    assert "data" not in own.plugins
    config = replaced(config, "model.time_steps", 2)
    result = loop.train(config, own=own, name="small", root=tmp_path, console=QUIET())
    assert result["gradient_norms"]["chaos"] > 0 and result["last"]["test_count"] == 359


@pytest.mark.slow
def test_the_plugins_of_the_page_are_those_that_run(page, tmp_path):
    """All at once: each value of a step is recomputed from the part itself."""
    parts, config = page[1]["own"], page[1]["config"]
    splits, _ = build.load_data(config, parts, tmp_path)
    config, source = build.resolve(config, splits), splits["train"]
    run = shared_programs.compile_run(config, source, 4, parts)
    state = run.init(jax.random.key(0))
    batch = source.take(np.arange(64), np.zeros((64, 0)))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    recipe = build.build_recipe(config, parts, 4)
    model: Any = recipe.model
    term: Any = recipe.term
    tx, loss = recipe.tx, recipe.loss
    assert type(model).__name__ == "Skip" and model.neuron.__name__ == "leaky"

    @jax.jit
    def forward(variables, x):
        tap = functools.partial(term, target=0.65, scale=10.0, cut=None, reduce="mean")
        return model.apply(variables, x, True, tap=tap, taps=("fc1.membrane",), mutable=["batch_stats"])[0]

    logits, aux = forward(variables, jnp.asarray(batch["x"]))
    _, reported = run.train_step(state, run.shard_batch(batch))  # donates the state
    np.testing.assert_allclose(reported["task_loss"], loss(logits, jnp.asarray(batch["y"])), rtol=1e-4)
    np.testing.assert_allclose(reported["chaos_loss"], aux.terms["fc1.membrane"], rtol=1e-4)
    assert reported["chaos_loss"] != pytest.approx(float(chaos.term(jnp.zeros(3))), rel=0.01)
    still = {"w": jnp.zeros(50)}
    pushed, _ = tx.update(still, tx.init(still), still, step=0, key=jax.random.key(1))
    assert jnp.all(jnp.abs(pushed["w"]) > 0.5)  # Adam's first step, of noise alone


@pytest.mark.slow
def test_the_pages_python_trains_and_loads(page, monkeypatch, refused):
    folder, names = page
    monkeypatch.chdir(folder)
    assert names["result"]["last"]["epoch"] == 1 and names["config"].model.classes == 3
    reported = json.loads(pathlib.Path("runs/toy/config.json").read_text())["own"]
    assert reported == {"parts": list(PARTS)}
    with pytest.raises(ConfigError, match=r"was made from Python with own parts .*; pass them there as own=Own"):
        csbp_jax.load("runs/toy")
    said = refused("evaluate", "runs/toy", "--trust")
    assert "for commands read own parts only from a run that was made from their file" in said
    evaluated = evaluate.evaluate_run("runs/toy", own=names["own"], console=QUIET())
    assert evaluated["accuracy"] == pytest.approx(names["result"]["last"]["test_accuracy"], abs=1e-9)
    np.save("x.npy", np.zeros((5, 12)))
    assert predict.predict("runs/toy", "x.npy", own=names["own"])[0].labels
    assert export("runs/toy", "npz", own=names["own"]).exists()
    with pytest.raises(ConfigError, match=r"has own parts .data, .*, but given are \(loss\)"):
        csbp_jax.load("runs/toy", own=csbp_jax.Own(loss=names["loss"]))
    with pytest.raises(ConfigError, match=r"NAME: missing; a run with own parts .* needs a name"):
        loop.train(names["config"], own=names["own"], console=QUIET())


# --- what is wrong ------------------------------------------------------------------------------------------------

HEAD = """import numpy as np
import jax.numpy as jnp
from csbp_jax.config import Chaos, Config, Data, Loss, Model
config = Config(model=Model(name="dense", input_shape=(), classes=0, time_steps=2, features=(4,)), batch_size=8)
x, y = np.zeros((40, 2, 3)), np.arange(40) % 2
def data(config, data_dir): return {"train": (x, y), "test": (x, y)}
"""
# How the line begins.
WRONG = {
    "x = (": "{}:7: SyntaxError: '(' was never closed",
    "x = '\0'": "{}: SyntaxError: source code string cannot contain null bytes",
    "import sys; sys.exit(0)": "{}:7: SystemExit: 0",
    "def data(config, data_dir): return np.load('gone.npz')": "{}:7: in data: FileNotFoundError: ",
    "def neuron(config):\n    def cell(x, membrane=None):\n        return x @ jnp.ones(9), x\n    return cell":
        "{}:9: in cell: TypeError: ",
    "def neuron(config): return lambda x, membrane=None: x":
        "{}: neuron: TypeError: for x of shape (1, 2, 4), it gives an array; expected is (spikes, state), spikes",
    "def neuron(config): return lambda x, membrane=None: (x[0], None)":
        "{}: neuron: TypeError: for x of shape (1, 2, 4), it gives a tuple of 2, the first of shape (2, 4)",
    "def neuron(config): return 3": "{}: neuron: TypeError: it returns 3; expected is a neuron, a function of (x, ",
    "def loss(config): return config.optimizer.lr * 2": "{}: loss: TypeError: 'float' object is not callable",
    "def loss(config): return lambda logits, labels, where=None: logits":
        "{}: loss: TypeError: Gradient only defined for scalar-output functions. Output had shape: (8, 2, 2).",
    "def loss(config): return 1 if config.seed else 2":
        "{}:7: in loss: AttributeError: seed: runs that differ in it share this function; see hparams in docs/own.md\n",
    "def neuron(config, hparams): return config.chaos.z0":
        "{}:7: in neuron: AttributeError: chaos.z0: runs that differ in it share this function; see hparams in",
    "data = lambda: None": "{}: data: TypeError: <lambda>() takes 0 positional arguments but 2 were given",
}  # fmt: skip


@pytest.mark.parametrize("lines", WRONG)
def test_errors_are_one_line(lines, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.py").write_text(HEAD + lines + "\n")
    assert refused("train", "wrong.py").startswith("csbp_jax: " + WRONG[lines].format("wrong.py"))
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.py"]


def test_the_traceback_is_there_for_who_asks(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CSBP_TRACEBACK", "1")
    (tmp_path / "wrong.py").write_text("def f():\n    1 / 0\nf()\n")
    assert main.main(["train", str(tmp_path / "wrong.py")]) == 2
    reported = capsys.readouterr().err
    assert "Traceback" in reported and "wrong.py:2: in f: ZeroDivisionError" in reported.splitlines()[-1]


def test_a_file_to_predict_keeps_its_numbers_or_is_refused(tmp_path):
    """An integer's brightness is relative to its type, so a file of another type would mean other numbers."""
    picture = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)

    def read(x, records):
        np.save(tmp_path / "a.npy", x)
        return arrays.reader(ArraySource(records[None], np.zeros(1, np.int32), 2))(tmp_path / "a.npy")

    for same in (picture, picture.astype(np.int64)):
        got = read(same, picture)
        assert got.dtype == np.uint8 and np.array_equal(got, picture)
    for given in (picture / 255, picture > 7, -1 - picture.astype(int), picture.astype(np.int64) + 256):
        with pytest.raises(ConfigError, match=r"a.npy: is .* from .* this run's records are uint8; save uint8"):
            read(given, picture)
    as_float = picture.astype(np.float32)
    with pytest.raises(ConfigError, match=r"a.npy: is uint8 from 0 to 15, but this run's records are float32"):
        read(picture, as_float)
    got = read(picture.astype(np.int64), as_float)
    assert got.dtype == np.float32 and np.array_equal(got, as_float)
    # Counts are the same numbers in any type, also one that the first record did not need.
    frames = np.repeat(picture, 3, axis=0)
    assert read(frames.astype(np.uint16) + 300, frames).max() == 315


def test_own_classes_are_not_for_other_processes(tmp_path):
    source = "class S(list):\n    classes = 2\ns = S([{'x': np.zeros((2, 3), np.float32), 'y': np.int32(0)}] * 20)\n"
    given = "def data(config, data_dir): return dict.fromkeys(('train', 'validation', 'test'), s)\n"
    config, parts = load(tmp_path, HEAD + source + given)
    assert len(build.load_data(config, parts, tmp_path)[0]["train"]) == 20
    with pytest.raises(ConfigError, match=r"data.workers: 2 is not possible for a source that .*own.py defines"):
        build.load_data(replaced(config, "data.workers", 2), parts, tmp_path)


@pytest.mark.parametrize(("events", "kind"), [(True, np.uint8), (False, np.float64)])
def test_take_may_convert_records_to_a_type_in_which_they_mean_the_same(events, kind):
    class Converted(list):
        classes, num_uniforms = 2, 1

        def take(self, indices, uniforms):
            return {"x": np.zeros((len(indices), 1, 3), np.float32), "y": np.zeros(len(indices), int)}

    source: Any = Converted([{"x": np.zeros((1, 3), kind), "y": 0}])
    source.events = events
    assert arrays.sources(dict.fromkeys(("train", "validation", "test"), source), Config(), "own")


def test_a_pair_beside_a_source_has_its_classes_though_it_lacks_their_records():
    class Ten(list):
        classes = 10

    source = Ten([{"x": np.zeros((1, 3), np.float32), "y": 9}])
    pair = np.zeros((4, 1, 3), np.float32), np.zeros(4, int)
    config = replaced(Config(), "model.classes", 0)
    splits = arrays.sources({"train": source, "validation": source, "test": pair}, config, "own")
    assert [split.classes for split in splits.values()] == [10, 10, 10]


def test_splits_may_have_frames_of_other_sizes_if_these_are_resized():
    class Frames(list):
        classes, events = 2, True

    sizes = {"train": 12, "validation": 12, "test": 9}
    given = {split: Frames([{"x": np.zeros((4, n, n, 2), np.uint8), "y": 0}] * 4) for split, n in sizes.items()}
    config = replaced(replaced(Config(), "data.size", (6, 6)), "data.resize", "bilinear")
    assert set(arrays.sources(given, config, "own")) == set(sizes)
    with pytest.raises(ConfigError, match="give all splits one form"):
        arrays.sources(given, Config(), "own")


SOURCE = """class S(list):
    classes = np.int64(2)
    events = True
    def take(self, indices, uniforms):
        return {"x": np.stack([self[i]["x"][-2:] for i in indices]), "y": np.zeros(len(indices), np.int32)}
def data(config, data_dir):
    return dict.fromkeys(("train", "validation", "test"), S([{"x": np.zeros((9, 3), np.float32), "y": 0}] * 20))
"""


def test_a_source_may_cut_its_records_and_count_classes_with_numpy(tmp_path):
    config, parts = load(tmp_path, HEAD + SOURCE)
    splits, _ = build.load_data(config, parts, tmp_path)
    assert to_json(build.resolve_model(config, splits))["model"]["classes"] == 2


def test_changed_data_are_detected(trained_run, tmp_path):
    config, parts = plugin_file.load_file(trained_run[1])
    first = build.load_data(config, parts, trained_run[0])[1]
    bursts = dict(np.load(trained_run[0] / "bursts.npz"))
    bursts["x"][3, 2, 1] ^= True
    np.savez(tmp_path / "bursts.npz", **bursts)
    assert build.load_data(config, parts, tmp_path)[1] != first == build.load_data(config, parts, trained_run[0])[1]
    assert restore.restore(trained_run[0] / "r", trust=True).data == run_dir.fingerprint_digest(first)


def test_what_comes_next_can_be_typed_for_a_run_with_own_code_too(trained_run, capsys):
    folder, file, _, _ = trained_run
    line = ["train", str(file), "--name", "r", "--epochs", "2", "--runs", str(folder), "--data-dir", str(folder)]
    assert main.main(line) == 0
    assert f"evaluate {folder / 'r'} --trust\n" in capsys.readouterr().out
