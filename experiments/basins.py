"""Measure how fractal the basins of the XOR net's final functions are, by the plan of docs/results/basins/plan.md.

    python -m experiments.basins [--out docs/results/basins] [--points 96] [--steps 5000]

The labels of each condition are stored as ``NAME.npz`` and not computed again.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray
from scipy import stats

from csbp_jax import dynamics
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.statistics import holm, share_text, wilson
from experiments.study import Content, finite_or_none
from experiments.xor.net import Kind, Params, Setting, forward, train_from, uniform

MODULE = "python -m experiments.basins"

SPAN, MOVED, BLOCK, BOX = 2.0, 1e-6, 1024, 5
"""Half the side of the plane; distance of the check; starts computed at once; side of a box, in starts."""

CHECKED = 16
"""Starts per axis of the check."""

XOR, NOT_FINITE = 0b0110, 16
"""Labels: the bits of a truth table, the input (0, 0) first and lowest; and that of a run that ran away."""

Labels = Mapping[str, NDArray[np.uint8]]
"""``{labels [points, points], checked, moved [checked, checked]}``, rows over a and columns over b."""


class Condition(NamedTuple):
    """A kind of training, its strength, and which starts per axis it is run at: every one, every second, ..."""

    kind: Kind
    z0: float
    every: int = 1


CONDITIONS = {
    "plain": Condition(Kind(alone=True), 0.0),
    "CSBP": Condition(Kind(), 1.0),
    "drift": Condition(Kind(term="drift"), 1.0),
    "strong CSBP": Condition(Kind(), 32.0),
    "strong, 10 sub-steps": Condition(Kind(substeps=10), 32.0, 2),
}
FINE, COARSE = (1, 2, 4, 8), (1, 2, 4)
"""Offsets over all starts, and over every second start."""
# Which alphas the primary family compares, and whether over all starts.
PRIMARY = (
    ("CSBP", "plain", "alpha"),
    ("CSBP", "drift", "alpha"),
    ("strong CSBP", "plain", "coarse_alpha"),
    ("strong CSBP", "strong, 10 sub-steps", "coarse_alpha"),
)


def plane() -> Callable[[jax.Array], Params]:
    """``start([a, b])`` in the plane through the start of seed 0 along two random orthonormal directions."""
    centre, unravel = ravel_pytree(uniform(0))
    directions = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (centre.size, 2)))[0]
    return lambda coordinates: unravel(centre + directions @ coordinates)


def label(params: Params, setting: Setting) -> jax.Array:
    """The truth table of a net, or NOT_FINITE."""
    rates, _, _ = forward(params, setting)
    finite = jnp.all(jnp.stack([jnp.isfinite(p).all() for p in params.values()]))
    return jnp.where(finite, jnp.sum((rates > 0.5) << jnp.arange(4)), NOT_FINITE).astype(jnp.uint8)


def labels_of(condition: Condition, coordinates: NDArray[np.float32], steps: int) -> NDArray[np.uint8]:
    """The final labels of starts ``[N, 2]`` in the plane, ``[N]``."""
    start, setting = plane(), jax.tree.map(jnp.float32, Setting(z0=condition.z0))

    @jax.jit
    @jax.vmap
    def end(coordinates: jax.Array) -> jax.Array:
        _, params, _ = train_from(start(coordinates), 0, setting, kind=condition.kind, steps=steps)
        return label(params, setting)

    blocks = [coordinates[i : i + BLOCK] for i in range(0, len(coordinates), BLOCK)]
    return np.concatenate([np.asarray(end(block)) for block in blocks])


def measure(condition: Condition, points: int, steps: int) -> dict[str, NDArray[np.uint8]]:
    """Train from all starts of a condition: its :data:`Labels`."""
    axis = np.linspace(-SPAN, SPAN, points, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    starts, checked = grid[:: condition.every, :: condition.every], grid[_checked(points), _checked(points)]
    moved = checked + np.array([MOVED, 0], np.float32)
    labels = labels_of(condition, starts.reshape(-1, 2), steps).reshape(starts.shape[:2])
    every = _checked(len(labels))
    return {
        "labels": labels,
        "checked": labels[every, every],
        "moved": labels_of(condition, moved.reshape(-1, 2), steps).reshape(moved.shape[:2]),
    }


def _checked(points: int) -> slice:
    return slice(None, None, points // CHECKED)


def summary(labels: Labels, every: int) -> Content:
    """The numbers of a condition; ``alpha`` is None where it is not run at all starts."""
    grid = labels["labels"]
    counts = np.bincount(grid.ravel(), minlength=NOT_FINITE + 1)
    entropy = dynamics.basin_entropy(grid, BOX)
    return {
        "points": len(grid),
        "solved": wilson(grid.ravel() == XOR),
        "not_finite": counts[NOT_FINITE] / grid.size,
        "functions": int(np.count_nonzero(counts[:NOT_FINITE] >= 0.01 * grid.size)),
        "alpha": exponent(grid, FINE) if every == 1 else None,
        "coarse_alpha": exponent(grid[:: 2 // every, :: 2 // every], COARSE),
        "entropy": entropy.entropy,
        "boundary_entropy": finite_or_none(entropy.boundary_entropy),
        "boundary_share": entropy.boundary_share,
        "moved": wilson((labels["checked"] != labels["moved"]).ravel()),
    }


def exponent(grid: NDArray[np.uint8], offsets: Sequence[int]) -> Content | None:
    """The uncertainty exponent of a grid, as JSON has it; None where it has no boundary."""
    try:
        measured = dynamics.uncertainty_exponent(grid, offsets)
    except ValueError:
        return None
    return measured._asdict() | {"stderr": finite_or_none(measured.stderr)}


def compare(conditions: Mapping[str, Content]) -> list[Content]:
    """The differences of the primary family whose conditions have both been run, with Holm's correction over them."""
    pairs: list[Content] = []
    for name, reference, key in PRIMARY:
        if name in conditions and reference in conditions:
            first, second = conditions[name][key], conditions[reference][key]
            if first and second and None not in (first["stderr"], second["stderr"]):
                difference, error = first["alpha"] - second["alpha"], np.hypot(first["stderr"], second["stderr"])
                p = 2 * stats.norm.sf(abs(difference) / error)
                pairs.append(
                    {"minuend": name, "reference": reference, "difference": difference, "stderr": error, "p": p}
                )
    corrected = holm({i: pair["p"] for i, pair in enumerate(pairs)})
    return [pair | {"p_holm": corrected[i]} for i, pair in enumerate(pairs)]


def verdicts(conditions: Mapping[str, Content], pairs: Sequence[Content]) -> list[str]:
    """The plan's verdicts, on the strong term and on the term."""
    below = {(pair["minuend"], pair["reference"]): pair["p_holm"] < 0.05 and pair["difference"] < 0 for pair in pairs}
    lines = []
    for name, control, sharp, blunt in (
        (
            "strong CSBP",
            "strong, 10 sub-steps",
            "chaos makes basins more fractal",
            "strength makes basins more fractal",
        ),
        ("CSBP", "drift", "the term's overshooting makes basins more fractal", "the term makes basins more fractal"),
    ):
        # A grid without a boundary has no exponent, and so no difference.
        without = [other for other in (name, "plain", control) if conditions.get(other, {}).get("boundary_share") == 0]
        if without:
            lines.append(
                f"{name}: not shown that its basins are more fractal; without a boundary: {'; '.join(without)}"
            )
        elif (name, control) not in below or (name, "plain") not in below:
            lines.append(f"{name}: not decided, as a condition is missing")
        elif below[name, "plain"]:
            lines.append(f"{name}: {sharp if below[name, control] else blunt}")
        else:
            lines.append(f"{name}: not shown that its basins are more fractal")
    return lines


def page(content: Content) -> str:
    """The tables of conditions and of the primary family, and the verdicts."""
    rows = []
    for name, result in content["conditions"].items():
        boundary = result["boundary_entropy"]
        rows.append(
            [
                name,
                f"{result['points']}²",
                share_text(result["solved"]),
                str(result["functions"]),
                _alpha_text(result["alpha"]),
                _alpha_text(result["coarse_alpha"]),
                f"{result['entropy']:.3f}",
                "" if boundary is None else f"{boundary:.3f}",
                share_text(result["moved"]),
            ]
        )
    head = ["condition", "starts", "solved (%)", "functions", "alpha", "alpha, every second start"]
    head += ["basin entropy", "boundary basin entropy", "changed by 1e-6 (%)"]
    pairs = [
        [
            f"{pair['minuend']} - {pair['reference']}",
            f"{pair['difference']:+.3f} ± {1.96 * pair['stderr']:.3f}",
            f"{pair['p_holm']:.2g}",
        ]
        for pair in content["primary"]
    ]
    lines = [study.table(head, rows), study.table(["difference of alpha", "95 % interval", "p, Holm"], pairs)]
    return "\n\n".join([*lines, *(f"Verdict: {line}." for line in content["verdicts"])])


def _alpha_text(measured: Content | None) -> str:
    if not measured:
        return ""
    error = measured["stderr"]
    return f"{measured['alpha']:.3f}" + ("" if error is None else f" ± {1.96 * error:.3f}")


def draw(labels: Mapping[str, Labels], summaries: Mapping[str, Content], out: pathlib.Path) -> None:
    """Draw the plane of each condition, and the uncertain fraction over the distance."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    figure = empty_figure(12, 8)
    panels = figure.subplots(2, 3).ravel()
    seen = np.unique(np.concatenate([run["labels"].ravel() for run in labels.values()]))
    shades: Sequence[Any] = PALETTE if len(seen) <= len(PALETTE) else [colormaps["tab20"](i) for i in range(20)]
    colours = {int(value): to_rgb(shade) for value, shade in zip(seen, shades, strict=False)}
    for axes, (name, run) in zip(panels, labels.items(), strict=False):
        grid = run["labels"]
        image = np.array([[colours[int(value)] for value in row] for row in grid])
        axes.imshow(image, origin="lower", extent=(-SPAN, SPAN, -SPAN, SPAN), interpolation="nearest")
        axes.set(title=name, xlabel="b", ylabel="a")
    for axes in panels[len(labels) : -1]:
        axes.set_axis_off()
    spacing = 2 * SPAN / (max(result["points"] for result in summaries.values()) - 1)
    for name, result in summaries.items():
        measured, scale = (result["alpha"], 1) if result["alpha"] else (result["coarse_alpha"], 2)
        if measured:
            distances = spacing * scale * np.array(measured["offsets"])
            panels[-1].loglog(distances, measured["fractions"], ".-", label=name)
    ticks = spacing * np.array(FINE)
    panels[-1].set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    panels[-1].set_xticks([], minor=True)
    panels[-1].set(xlabel="distance", ylabel="uncertain fraction", title="uncertain starts")
    panels[-1].grid(alpha=0.3)
    if panels[-1].lines:
        panels[-1].legend(fontsize="small")
    handles = [Patch(color=colour, label=label_text(value)) for value, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=9, frameon=False, fontsize="small")
    study.save_figure(figure, out, "basins")


def label_text(value: int) -> str:
    """The outputs for (0, 0), (0, 1), (1, 0) and (1, 1), and the name of XOR."""
    if value == NOT_FINITE:
        return "not finite"
    outputs = "".join("01"[value >> i & 1] for i in range(4))
    return f"{outputs} (XOR)" if value == XOR else outputs


def file_stem(name: str) -> str:
    """The name of a condition's file."""
    return name.replace(", ", "_").replace(" ", "_").lower()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "basins")
    parser.add_argument("--points", type=int, default=96)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args(arguments)
    if options.points < 2 * CHECKED or options.points % (2 * CHECKED):
        parser.error(f"--points: {options.points} is not possible; allowed are multiples of {2 * CHECKED}")
    file = options.out / "basins.json"
    content = study.resume(parser, file, {"points": options.points, "steps": options.steps}, {})
    labels: dict[str, dict[str, Any]] = {}
    for name, condition in CONDITIONS.items():
        stored = options.out / f"{file_stem(name)}.npz"
        if not stored.exists():
            study.write_arrays(stored, measure(condition, options.points, options.steps))
            study.store(file, content, MODULE)
        labels[name] = dict(np.load(stored))
        summaries = {name: summary(run, CONDITIONS[name].every) for name, run in labels.items()}
        pairs = compare(summaries)
        content |= {"conditions": summaries, "primary": pairs, "verdicts": verdicts(summaries, pairs)}
        draw(labels, summaries, options.out)
        study.write(options.out, "basins", content, page(content))


if __name__ == "__main__":
    study.run(main)
