"""Record the programs that the package writes: ``python -m tools.programs [--check] [NAME ...]``.

The initialisation, the training step and the evaluation step of every preset, and of variants of some, are lowered to
StableHLO for CPUs, CUDA GPUs and TPUs, from shapes alone. tests/data/programs.json holds a hash of each. While it
stays, so do the numbers and the speed on that platform, with these versions of JAX and of the libraries beside it.

A hash is of the data flow: what an output is computed from, by which operations and in which types, and which
arguments' memory it takes. Names, places in the source, the order of statements, weak types, and whether a function is
called or written out do not matter.

``--check`` compares, and writes nothing; its exit code is 1 if a hash has moved. A NAME is a preset, which stands for
its variants, too, or a line of VARIANTS. All take a quarter of an hour on one core.
"""

import argparse
import ast
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks import lowering
from csbp_jax import configs, controls
from csbp_jax.config import Config, check, replaced
from csbp_jax.data.events.recordings import DATA_SETS
from csbp_jax.data.series.readers import DATA_SETS as SERIES
from csbp_jax.runtime import hardware, sharding
from csbp_jax.runtime.files import write_text
from csbp_jax.training.plugins import Own

RECORD = pathlib.Path(__file__).parent.parent / "tests" / "data" / "programs.json"
PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
"""XLA's platforms, and JAX's names of them."""
PARTS = ("init", "train", "evaluate")
LIBRARIES = ("jax", "jaxlib", "flax", "optax")

VARIANTS = """\
digits optimizer.sam_radius=0.05
digits optimizer.ema=0.99
digits optimizer.accumulate=2
digits optimizer.name=sgd optimizer.weight_decay=0.01 optimizer.schedule=step optimizer.warmup_epochs=2
digits optimizer.name=adam optimizer.clip=1.0 optimizer.layer_decay=0.8
digits optimizer.name=lion optimizer.weight_decay=0.01
digits optimizer.name=muon optimizer.weight_decay=0.01
digits model.remat=True
digits model.precision=bfloat16
digits model.norm=tdbn
digits model.norm=tebn
digits model.norm=bntt
digits model.norm=none model.init_rate=0.2
digits model.norm_groups=2
digits model.pool=max
digits model.dropout=0.2
digits model.time_steps=24
digits model.neuron.learn=layer
digits model.neuron.learn=channel model.neuron.reset=soft model.neuron.surrogate=sigmoid
digits model.neuron.reset=none model.neuron.surrogate=rectangle
digits model.neuron.detach_reset=True model.neuron.surrogate=arctan model.neuron.scale_input=True
digits model.neuron.at_threshold=fire model.neuron.surrogate=fast_sigmoid
digits model.neuron.name=cuba model.neuron.surrogate=erf
digits model.neuron.name=alif model.neuron.surrogate=piecewise_exp
digits model.neuron.name=adlif
digits model.neuron.name=clif
digits model.neuron.name=ilif
digits model.neuron.name=psn
digits model.neuron.name=masked_psn
digits model.neuron.name=sliding_psn
digits loss.smoothing=0.1
digits loss.name=tet loss.firing=0.1
digits chaos.substeps=3
digits chaos.term=drift
digits chaos.term=linear chaos.cut=(-10.0,9.9) chaos.reduce=sum
digits chaos.taps=('conv1.conv','conv2.norm','conv3.membrane_pre') chaos.z0=(1.0,2.0,3.0) chaos.reduce=mean
digits own=ar1
digits data.encode=rate
digits data.encode=latency data.augment=('cutmix',)
digits data.augment=('mixup',) data.mix_off_epochs=5
digits layout=zero1 devices=2
digits layout=fsdp devices=2
digits devices=4 slices=2
digits_events data.augment=('event_drop','flip','crop','roll','rotate') data.frames=8
digits_events data.augment=('shear','cutout','batch_crop_flip','nda') data.normalise=max
digits_events model.precision=bfloat16 model.remat=True
cifar10_dvs_small data.resize=nearest
cifar10_dvs model.precision=bfloat16
digits_spikformer model.precision=bfloat16
mnist_plif model.pool=average
imagenet_sew_resnet18 model.precision=bfloat16 layout=fsdp devices=2
dvs_gesture_sew_7b model.connect=iand
dvs_gesture_sew_7b model.drop_path=0.1 model.remat=True
fsdd model.neuron.name=cuba
digits members=4
digits members=4 devices=2
digits members=4 model.neuron.learn=channel model.norm=tebn
cifar10_quick members=4
cifar10_quick members=4 model.precision=bfloat16
digits_events members=4
fsdd members=4
fsdd_delays members=4
""".splitlines()
"""Presets with other options.

``devices`` share the batch, in ``slices`` of TPUs; ``own`` is a part of FORCES. ``members`` of a sweep train at once.
"""
FORCES = {"ar1": Own(control=lambda config, tx: optax.chain(tx, controls.ar1(0.9, lambda step: 0.01)))}


class Program(NamedTuple):
    """What is lowered: a config over some devices, with parts of its own; of a run, or of members of a sweep."""

    config: Config
    devices: int = 1
    slices: int = 1
    own: Own = Own()
    members: int = 0


def parse(name: str) -> Program:
    """Read the name of a preset or a variant."""
    preset, *options = name.split()
    config, others = configs.load(preset), dict[str, Any]()
    if preset == "folder":  # its pictures decide
        config = replaced(replaced(config, "model.input_shape", (32, 32, 3)), "model.classes", 10)
    for field, value in ((field, _literal(value)) for field, value in (option.split("=", 1) for option in options)):
        if field in Program._fields:
            others[field] = FORCES[value] if field == "own" else value
        else:
            config = replaced(config, field, value)
    return Program(check(config), **others)


def hashes(program: Program, platform: str) -> list[str]:
    """Return the hash of each of PARTS on a platform."""
    config = program.config
    floats = config.data.name in ("digits", *SERIES) or config.data.name.endswith(("_sequential", "_permuted"))
    frame, dtype = config.model.input_shape, np.float32 if floats else np.uint8
    events = len(frame) == 1 or frame[-1] == 2
    if config.data.resize != "events":
        frame = DATA_SETS[config.data.name].shape
    shape = (config.model.time_steps if events else 1, *frame)
    if program.members:
        devices = jax.devices()[: program.devices]
        traces = lowering.members(config, shape, dtype, program.members, devices, program.own, PLATFORMS[platform])
    else:
        traces = _of_run(program, shape, dtype, platform)
    # JAX shows them in no other way. Without the level of LLVM, which XLA_FLAGS may set, as in tests.
    given = (trace._params["compiler_options_kvs"] for trace in traces)
    options = [str(tuple(pair for pair in pairs if pair[0] != hardware._LEVEL)) for pairs in given]
    modules = [trace.lower(lowering_platforms=(platform,)).compiler_ir() for trace in traces]
    return [digest(module, words) for module, words in zip(modules, options, strict=True)]


def _of_run(program: Program, shape: tuple[int, ...], dtype: Any, platform: str) -> list[jax.stages.Traced]:
    """Trace the PARTS of a run for a platform; ``shape`` is a record's."""
    config, slices = program.config, [i * program.slices // program.devices for i in range(program.devices)]
    mesh = sharding.data_mesh(jax.devices()[: program.devices], slices)
    run, init, state, batch = lowering.shapes(config, shape, dtype, mesh, program.own, PLATFORMS[platform])
    if config.data.bins == "own" or config.data.name in ("watch", "omniglot_strokes"):
        batch["lengths"] = jax.ShapeDtypeStruct((config.batch_size,), np.int32, sharding=batch["y"].sharding)
    key, size = jax.eval_shape(lambda: jax.random.key(0)), config.eval_batch_size
    rows = {name: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype, sharding=a.sharding) for name, a in batch.items()}
    rows["mask"] = jax.ShapeDtypeStruct((size,), np.bool_, sharding=rows["y"].sharding)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        evaluate = jax.jit(run.pure_eval_step).trace(state, key, rows)
    return [init, run.train_step.trace(state, batch), evaluate]


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:  # a name
        return value


def digest(module: Any, *words: str) -> str:
    """Return a hash of the data flow of a StableHLO module, and of further words."""
    functions, others = {}, []
    for operation in (view.operation for view in module.body.operations):
        if operation.name == "func.func":
            functions[operation.attributes["sym_name"].value] = operation
        else:
            others.append(str(operation))  # meshes
    text = functools.cache(str)  # of types and attributes, which repeat

    def evaluate(block: Any, inputs: Sequence[str], outer: dict[Any, str], depth: int) -> list[str]:
        """Return the hashes of what a block returns, from those of its arguments and of values around it."""
        hashes = outer | dict(zip(block.arguments, inputs, strict=True))
        for operation in (view.operation for view in block.operations):
            operands = [hashes[value] for value in operation.operands]
            attributes = {name: operation.attributes[name] for name in operation.attributes}
            if operation.name.endswith("return"):
                return operands
            types = [text(value.type) for value in operation.results]
            if operation.name == "stablehlo.convert" and [text(value.type) for value in operation.operands] == types:
                results = operands  # a strong type in place of JAX's weak one
            elif operation.name == "func.call":  # as if written out, unless XLA is kept from that
                function = functions[attributes.pop("callee").value]
                results = evaluate(function.regions[0].blocks[0], operands, {}, depth)
                if attributes:
                    results = [_hash(result, *_texts(attributes)) for result in results]
            else:
                parts = [operation.name, *operands, *_texts(attributes), *types]
                for inner in (block for region in operation.regions for block in region.blocks):
                    arguments = [f"{depth} {i} {text(a.type)}" for i, a in enumerate(inner.arguments)]
                    parts += ["block", *evaluate(inner, arguments, hashes, depth + 1)]
                results = [f"{_hash(*parts)} {i}" for i in range(len(types))]
            hashes |= zip(operation.results, results, strict=True)
        raise ValueError("a block that returns nothing")

    def _texts(attributes: dict[str, Any]) -> list[str]:
        return [f"{name} {text(attribute)}" for name, attribute in attributes.items()]

    main = functions["main"]
    block, attributes = main.regions[0].blocks[0], main.attributes
    inputs = [f"argument {i} {text(a.type)}" for i, a in enumerate(block.arguments)]
    described = [
        f"{i} {item.name} {item.attr}"
        for name in ("arg_attrs", "res_attrs")
        if name in attributes
        for i, items in enumerate(attributes[name])
        for item in items
        if item.name != "jax.result_info"  # the names of the results
    ]
    return _hash(*words, *others, *described, *evaluate(block, inputs, {}, 0))[:12]


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    every = [*configs.NAMES, *VARIANTS]
    names = [name for name in every if not options.names or {name, name.split()[0]} & set(options.names)]
    if not names:
        sys.exit(f"there is no such program; {RECORD} lists all")
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    content: dict[str, Any] = (
        json.loads(RECORD.read_text()) if RECORD.exists() else {"versions": versions, "programs": {}}
    )
    if versions != content["versions"]:
        if options.check:
            sys.exit(f"{RECORD} was made with {content['versions']}, and here are {versions}")
        content = {"versions": versions, "programs": {}}
    jax.config.update("jax_num_cpu_devices", 4)
    moved = False
    for name, platform, after in compute(names):
        known = content["programs"].setdefault(name, {})
        before = known.get(platform, [""] * len(PARTS))
        changed = [part for part, old, new in zip(PARTS, before, after, strict=True) if old != new]
        print(f"{platform}, {name}: {', '.join(changed) + ' moved' if changed else 'as recorded'}", flush=True)
        moved |= bool(changed)
        if not options.check:
            known[platform] = after
            _write(content, every)
    sys.exit(bool(options.check and moved))


def compute(names: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield ``(name, platform, hashes)``; programs for the same devices one after the other, as they share traces."""
    programs = {name: parse(name) for name in names}
    jobs = [(platform, programs[name].devices, name) for platform in PLATFORMS for name in names]
    jobs.sort(key=lambda job: job[:2])
    for platform, _, name in jobs:
        yield name, platform, hashes(programs[name], platform)


def _write(content: dict[str, Any], names: list[str]) -> None:
    """Write a line per name, so that a change shows which have moved."""
    rows = ",\n".join(
        f"  {json.dumps(n)}: {json.dumps(content['programs'][n])}" for n in names if n in content["programs"]
    )
    versions = json.dumps(content["versions"])
    write_text(RECORD, f'{{\n "versions": {versions},\n "programs": {{\n{rows}\n }}\n}}\n')


if __name__ == "__main__":
    main()
