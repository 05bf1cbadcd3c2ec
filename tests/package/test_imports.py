"""The import contract of the packages: imports go to lower layers only, and third parties stay where they belong."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2] / "csbp_jax"

# From bottom to top; a package imports from lower layers, and from itself.
LAYERS = (
    "ranges",
    "config",
    "xla",
    "surrogate chaos losses runtime reporting",
    "controls neurons dynamics",
    "models learner data",
    "configs weights",
    "training",
    "runs",
    "instruments experiment",
    "evaluation",
    "export",
    "cli",
)
# Pure functions of arrays on one side, files, processes and devices on the other; they meet in training.
SCIENCE = {"surrogate", "chaos", "losses", "xla", "controls", "neurons", "dynamics", "models", "learner"}
SYSTEM = {"runtime", "reporting", "data"}

# Modules that may import a third party, by their prefix.
THIRD_PARTIES = {
    "flax": (
        "neurons.plif",
        "neurons.psn",
        "models",
        "learner",
        "training.checkpoint.arrays",
        "training.progress",
        "evaluation.synaptic_ops",
        "evaluation.robustness.spike_faults",
        "export",
    ),
    "optax": ("losses", "controls", "learner", "training", "instruments"),
    "grain": ("data",),
    "tensorflow_datasets": ("data.images",),
    "tonic": ("data.events",),
    "orbax": ("training.checkpoint",),
    "etils": ("training.checkpoint",),
    "fsspec": ("training.checkpoint",),
    "matplotlib": ("reporting",),
    "rich": ("reporting",),
    "pandas": (
        "runs",
        "reporting.plots_runs",
        "experiment",
        "evaluation.compare",
        "evaluation.contrast_file",
        "evaluation.robustness",
    ),
    "jinja2": ("evaluation.html_report", "export.model_card"),
    "tyro": ("cli",),
    "filelock": ("runtime",),
    "nir": ("weights.nir_file", "weights.nir_nodes", "export"),
    "safetensors": ("export", "runs.published"),
    "huggingface_hub": ("runs.hub", "export.hub"),
    "tensorboardX": ("evaluation.tensorboard",),
    # Imported by name in evaluation.trackers.
    "wandb": (),
    "mlflow": (),
    "trackio": (),
    "chex": (),
    "experiments": (),
    "examples": (),
}
NO_FLAX = (
    "surrogate",
    "chaos",
    "losses",
    "controls",
    "dynamics",
    "xla",
    "neurons.lif",
    "neurons.lif_scan",
    "neurons.chunked",
)


def module_name(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}
LAYER_OF = {package: number for number, names in enumerate(LAYERS) for package in names.split()}


def imports(file):
    """``(own modules, third parties)`` that a file imports, within functions too."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "csbp_jax" and rest != "__version__":
                own.add(rest)
            elif first != "csbp_jax":
                others.add(first)
    return own, others


@pytest.fixture(scope="module")
def imported():
    """``{module: (own modules, third parties)}``; the entry points may import everything."""
    return {name: imports(file) for name, file in MODULES.items() if name not in ("__init__", "__main__")}


def package(module):
    return module.partition(".")[0]


def test_imports_go_to_lower_layers(imported):
    for module, (own, _) in imported.items():
        for other in own:
            mine, theirs = package(module), package(other)
            assert theirs == mine or LAYER_OF[theirs] < LAYER_OF[mine], f"{module} imports {other}"


def test_science_and_system_do_not_import_each_other(imported):
    for module, (own, _) in imported.items():
        packages = {package(other) for other in own}
        if package(module) in SCIENCE:
            assert not packages & SYSTEM, module
        if package(module) in SYSTEM:
            assert not packages & SCIENCE, module


def test_the_learner_imports_no_model(imported):
    assert all(
        "models" not in map(package, own) for module, (own, _) in imported.items() if package(module) == "learner"
    )


def test_third_parties_stay_where_they_belong(imported):
    for module, (_, others) in imported.items():
        for name in others & set(THIRD_PARTIES):
            allowed = any(module == prefix or module.startswith(f"{prefix}.") for prefix in THIRD_PARTIES[name])
            assert allowed, f"{module} imports {name}"
        without_flax = any(module == prefix or module.startswith(f"{prefix}.") for prefix in NO_FLAX)
        assert not (without_flax and "flax" in others), f"{module} imports flax"


def test_no_import_cycles(imported):
    """Between modules; imports within functions count as well."""

    def target(name):
        return name if name in imported else name.rpartition(".")[0]

    # A package's __init__ imports its modules, which may import their siblings through it.
    graph = {
        module: {name for name in map(target, own) if not f"{module}.".startswith(f"{name}.")}
        for module, (own, _) in imported.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # it would name a cycle
