"""Results as tables in Markdown: median (minimum-maximum)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.timing import cell

Content = Mapping[str, Any]
FORMS = """They were timed eagerly, under `torch.compile` (compiled), and under it with the mode
max-autotune-no-cudagraphs (autotuned), each with channels first and with channels last in memory: the first row is the
fastest of all, the second the fastest that runs eagerly."""
EAGERLY = """They were timed eagerly (under `torch.compile`: not yet measured), with channels first and with
channels last in memory; the row is the faster."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)])


def machines(content: Content) -> str:
    """The machine of the parts, and of those that were measured on another."""
    others: dict[str, list[str]] = {}
    for part, name in content.get("machines", {}).items():
        if name != content["machine"]:
            others.setdefault(name, []).append(part)
    return content["machine"] + "".join(f" ({', '.join(parts)}: {name})" for name, parts in others.items())


def tables(content: Content) -> Iterator[str]:
    """The tables of all measured parts."""
    for part, show in SHOWN.items():
        if part in content:
            yield show(content[part])


def neurons(rows: Content) -> str:
    head = ["", "program", "ns", "forward ns", "backward ns", "/ lif"]
    body = []
    for label, row in rows.items():
        for name, n in row.items():
            stages = [cell(stage) for stage in n["stages_ns"]] if len(n["stages_ns"]) == 2 else ["", ""]
            body.append([label, name, cell(n["ns"]), *stages, cell(n["over_lif"])])
    return "## The neuron\n\n" + table(head, body) + donation(rows)


def donation(rows: Content) -> str:
    """Which programs may write over their arguments, in tables that compare both; otherwise nothing."""
    if not all("lif, arguments kept" in row for row in rows.values()):
        return ""
    return """

Beyond T=4, lif may write over its input and over the cotangent of the spikes (they are donated), as over temporaries in
a network. Of the others, only "spyx, arguments donated" may; ratios are of spyx without."""


def other_neurons(content: Content) -> str:
    head = ["", "neuron", "ns", "states", "/ lif"]
    body = []
    for label, row in content["rows"].items():
        for name, n in row.items():
            body.append([label, name, cell(n["ns"]), str(n["states"]), cell(n["over_lif"])])
    return f"""## Other neurons

Those of `model.neuron.name`, without their last states, over {content["rounds"]} rounds on {content["machine"]}; lif on
the same machine. The parallel neurons include the gradients of their weights.

{table(head, body)}"""


def term(numbers: Content) -> str:
    ns = numbers["ns_per_element"]
    return f"""## The chaos term

Value and gradient: {cell(ns["term"])} ns per element; one read and write of an element: {cell(ns["copy"])} ns;
ratio {cell(numbers["term_over_copy"])}."""


def training_steps(rows: Content) -> str:
    head = [
        "net",
        "program",
        "ms",
        "/ ours",
        "parameters",
        "compile s",
        "ready s",
        "temporaries MB",
        "peak MB",
        "before",
    ]
    body = []
    for name, row in rows.items():
        sizes = row["about"]
        shape = f"{name}, B={sizes['batch']}, T={sizes['T']}, {'x'.join(map(str, sizes['input']))}"
        for program, n in row["programs"].items():
            compiled = [f"{n[key]:.1f}" if key in n else "" for key in ("compile_seconds", "temporary_MB")]
            label = f"{program.partition(',')[0]}, {n['form']}" if "form" in n else program
            body.append(
                [
                    *(shape, label, cell(n["ms"], 1), cell(n["over_ours"]), f"{n['parameters']:,}"),
                    *(compiled[0], f"{n['ready_seconds']:.1f}", compiled[1]),
                    *(f"{n['peak_MB']:.0f}", f"{n['start_MB']:.0f}"),
                ]
            )
    shares = "\n".join(
        f"- {name}: chaos term {cell(row['chaos_share'], 1, 100)} % of a step; SpikingJelly "
        + (agreement(row["same"]) if "same" in row else "not run")
        + "".join(f"; {form}: not compiled ({problem})" for form, problem in row.get("failed", {}).items())
        for name, row in rows.items()
    )
    forms = FORMS if any("form" in n for row in rows.values() for n in row["programs"].values()) else EAGERLY
    return f"""## Training steps

SGD with momentum; ours includes its metrics and its check for non-finite values. Peak: resident memory of the process,
including compilation; before: after the imports. Ready: time from the end of the imports to the end of the first step;
no cache holds a compiled program.
At highest precision (`JAX_DEFAULT_MATMUL_PRECISION=highest`), no convolution is in Winograd's form. SpikingJelly's are
the networks of `experiments.parity`, plain PyTorch, with its neurons in them. {forms}
In ResNet-19 they convolve a still image at each time step, ours once: less than 1 % of the operations.

{table(head, body)}

{shares}"""


def convolutions(rows: Content) -> str:
    head = ["net", "program", "ms", "/ ours"]
    body = [
        [net, name, cell(n["ms"], 1), cell(n["over_ours"])]
        for net, row in rows.items()
        for name, n in row["stages"]["all"].items()
    ]
    differ = max(row["differ"] for row in rows.values())
    return f"""## Convolutions alone

All convolutions of a training step, forward and both gradients, each timed alone and compiled as in the step:
kernels of 3x3 in Winograd's form where it is faster, those on up to three channels as products with patches, others
with Eigen's kernels. By default XLA uses YNNPACK's. Of torch, run eagerly, each is the faster of channels first and
last. The largest difference between values is {differ:.0e} of the largest value.

{table(head, body)}"""


def agreement(same: Content) -> str:
    """Agreement of two nets in parameters and first losses; after the first step, rounding changes single spikes."""
    differ = ", ".join(f"{share:.0e}" for share in same["losses_differ"])
    number = "the same number" if same["parameters"] else "a different number"
    return f"has {number} of parameters; its first losses differ by {differ}, relative to ours at highest precision"


def growth(points_of: Content) -> str:
    head = ["CNN7, width 1/4", "ms", "temporaries MB", "peak MB"]
    body = []
    for axis, points in points_of.items():
        for value, row in points.items():
            ours = row["programs"]["ours"]
            memory = f"{ours['temporary_MB']:.1f}", f"{ours['peak_MB']:.0f}"
            body.append([f"{axis}={value} ({'B' if axis == 'T' else 'T'}=4)", cell(ours["ms"], 1), *memory])
    return "## Growth with T and batch\n\n" + table(head, body)


def dispatch(numbers: Content) -> str:
    return f"""## Dispatch

A step of a 12-layer net of 8 units with Adam, {numbers["leaves"]} leaves, one example: {cell(numbers["us"], 0)}
microseconds of wall time. A step that only increments a counter, with the same state:
{cell(numbers["counting_us"], 0)}. With an arena of glibc's allocator for each thread, which is its default, instead
of one for all: {cell(numbers["arenas_us"], 0)} and {cell(numbers["arenas_counting_us"], 0)}."""


def long(content: Content) -> str:
    rows = [[name, cell(n["ms"], 0), f"{n['temporary_MB']:.1f}"] for name, n in content["programs"].items()]
    return f"""## Long sequences

Gradient of a dense net of 700 inputs and two layers of 256, batch 16, over T = {content["T"]}, as a whole and in
chunks of {content["length"]}. Time in chunks over time as a whole: {cell(content["chunks_over_whole"])}.

{table(["", "ms", "temporaries MB"], rows)}"""


def members(content: Content) -> str:
    head = ["net", "members", "alone, ms", "a member in a loop / alone", "a member by vmap / alone"]
    body = [[n, str(r["members"]), cell(r["alone_ms"]), cell(r["loop"]), cell(r["vmap"])] for n, r in content.items()]
    return f"""## Members of a sweep

A sweep trains each chunk of members to its end before the next one: one member per chunk (a loop), or all members in
one chunk (vmap). Of a run alone and of a member in a loop, as many steps are timed as there are members, and waited for
once in the end.

{table(head, body)}"""


def experiment(n: Content) -> str:
    return f"""## Runs of an experiment

{n["runs"]} runs of a dense net, of 300 steps on 200 digits each, as one program that is compiled already:
{cell(n["seconds"], 1)} s of CPU time with their evaluation after each epoch, {cell(n["over_loop"])} times that of their
steps alone in one scan."""


def processes(n: Content) -> str:
    return f"""## One sweep, or processes

{n["members"]} members of the digits net for {n["steps"]} steps, {n["cores"]} cores, wall time.

- One sweep: {n["sweep_seconds"]:.0f} s.
- Processes, {n["cores"]} at once, with a warm compilation cache: {n["processes_seconds"]:.0f} s, scaled from
  {n["processes_run"]} processes of {cell(n["process_seconds"], 1)} s each.
- Time of the processes over that of the sweep: {n["times_less"]:.1f}."""


def waiting(content: Content) -> str:
    rows = [[name, cell(n["ms_a_step"], 0), cell(n["share"], 2, 100)] for name, n in content.items()]
    return f"""## Waiting for data

One core reads and computes: what is read during a step makes that step longer, and is not waited for.

{table(["preset, random data", "ms per step", "% of wall time waiting"], rows)}"""


def starts(n: Content) -> str:
    return f"""## From `csbp_jax train digits` to the first step's metrics

Without compiled programs in the cache: {cell(n["cold"], 1)} s; with them: {cell(n["warm"], 1)} s (wall time)."""


SHOWN: dict[str, Callable[[Content], str]] = {
    "neuron": neurons,
    "other_neurons": other_neurons,
    "chaos_term": term,
    "steps": training_steps,
    "convolutions": convolutions,
    "dispatch": dispatch,
    "growth": growth,
    "long": long,
    "members": members,
    "experiment": experiment,
    "processes": processes,
    "waiting": waiting,
    "starts": starts,
}
