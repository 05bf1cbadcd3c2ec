"""The floor plan of ARCHITECTURE.md: a file imports only from above it, and third parties keep to their rooms."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2] / "csbp_jax"
SCIENCE = [
    "surrogate",
    "chaos",
    "recurrence",
    "kernel_passes",
    "kernel",
    "neurons",
    "long",
    "circuits",
    "losses",
    "cbp",
    "controls",
    "norms",
    "probes",
    "precision",
    "layers",
    "operations",
    "models",
    "optimizer",
    "objective",
    "learner",
    "dynamics",
    "meter",
]
WORLD = [
    "data",
    "mesh",
    "devices",
    "cache",
    "stop",
    "own",
    "own_file",
    "processes",
    "manifest",
    "checkpoint_names",
    "bucket_names",
    "checkpoint_places",
    "checkpoint",
    "report",
    "run_folder",
    "metrics_file",
    "figures",
    "evaluation_figures",
    "inspection_figures",
    "tensorboard",
]
BOTH = [
    "configs",
    "weights",
    "assembly",
    "program",
    "lab",
    "twins",
    "watch",
    "choice",
    "training",
    "finder",
    "runs",
    "forward",
    "evaluate",
    "predict",
    "inspection",
    "export",
    "sweep",
    "comparison",
    "page",
    "options",
    "commands",
    "cli",
]
TOP = ["__init__", "__main__"]
ORDER = ["config", "intervals", "scores", "verdict", *SCIENCE, *WORLD, *BOTH, *TOP]
FENCES = {
    "flax": {"circuits", "norms", "probes", "precision", "layers", "operations", "models", "learner", "export"},
    "nir": {"export"},
    "safetensors": {"export"},
    "optax": {"losses", "controls", "optimizer", "learner", "assembly"},
    "grain": {"data"},
    "tensorflow_datasets": {"data"},
    "tonic": {"data"},
    "orbax": {"checkpoint"},
    "etils": {"manifest", "checkpoint_names", "bucket_names", "checkpoint_places", "checkpoint"},
    "fsspec": {"bucket_names"},
    "matplotlib": {"figures"},
    "tensorboardX": {"tensorboard"},
    "filelock": {"cache"},
    "rich": {"report"},
    "tyro": {"options"},
    "chex": set(),
    "experiments": set(),
    "examples": set(),
}
NUMPY_AND_JAX_ONLY = {"surrogate", "chaos", "recurrence", "kernel_passes", "kernel", "neurons", "long"}


def imports():
    """(room, own rooms imported, third parties imported) of each file; a room is a file or a folder of the package."""
    for file in sorted(ROOT.rglob("*.py")):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
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
                first, *rest = name.split(".")
                if first == "csbp_jax":
                    own |= {rest[0]} - {"__version__"}
                else:
                    others.add(first)
        yield room, own - {room}, others


def test_every_file_is_on_the_plan():
    assert {room for room, _, _ in imports()} == set(ORDER)


def test_imports_go_upwards_only():
    for room, own, _ in imports():
        for other in own:
            assert ORDER.index(other) < ORDER.index(room), f"{room} imports {other}, which stands below it"


def test_science_and_world_do_not_meet_before_train():
    for room, own, _ in imports():
        if room in SCIENCE:
            assert not own & set(WORLD), room
        if room in WORLD:
            assert not own & set(SCIENCE), room


def test_the_learner_takes_a_model_and_imports_none():
    assert all("models" not in own for room, own, _ in imports() if room == "learner")


def test_third_parties_keep_to_their_rooms():
    for room, _, others in imports():
        for package in others & set(FENCES):
            assert room in FENCES[package], f"{room} imports {package}"
        if room in NUMPY_AND_JAX_ONLY:
            assert others <= {"jax", "dataclasses", "functools", "os", "typing", "collections"}, room
