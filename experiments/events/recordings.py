"""Draw recordings of cifar10_events and count their events, for docs/data.md.

    python -m experiments.events.recordings [--data-dir data] [--out docs/results/events]

The data must have been prepared (make data DATASET=cifar10_events).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from csbp_jax import configs, data
from csbp_jax.data.events import camera
from csbp_jax.reporting import plots
from experiments import study

EDGES = len(camera.LOOP.corners) - 1


def first_of_each_class(source: data.DataSource) -> dict[int, NDArray[np.integer]]:
    """Return the frames ``[T, H, W, 2]`` of the first recording of each class, by its label."""
    first: dict[int, NDArray[np.integer]] = {}
    for i in range(len(source)):
        record = source[i]
        first.setdefault(int(record["y"]), record["x"])
        if len(first) == source.classes:
            break
    return dict(sorted(first.items()))


def surplus(frames: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the ON events minus the OFF events of each pixel ``[..., H, W]`` of frames ``[..., H, W, 2]``."""
    counts = frames.astype(np.int64)
    return counts[..., 1] - counts[..., 0]


def event_counts(splits: dict[str, data.DataSource]) -> dict[str, float]:
    """Return mean, standard deviation, least and most events of a recording over all splits."""
    sums = [int(source[i]["x"].sum(dtype=int)) for source in splits.values() for i in range(len(source))]
    return {"mean": float(np.mean(sums)), "sd": float(np.std(sums)), "least": min(sums), "most": max(sums)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "events", data_dir=True)
    options = parser.parse_args(arguments)
    config = configs.load("cifar10_events")
    with study.one_line_errors(parser):
        splits, names = data.load(config, options.data_dir), data.classes(config, options.data_dir)
    recordings = first_of_each_class(splits["train"])
    figure = plots.empty_figure(9, 2.3)
    axes = figure.subplots(2, len(recordings))
    for column, (label, frames) in enumerate(recordings.items()):
        above, below = axes[:, column]
        above.imshow(frames.sum(axis=(0, 3), dtype=int), cmap="Greys", vmin=0)
        above.set_title(names[label], fontsize="small")
        first_edge = surplus(frames[: len(frames) // EDGES]).sum(axis=0)
        below.imshow(first_edge, cmap="RdBu_r", vmin=-np.abs(first_edge).max(), vmax=np.abs(first_edge).max())
        for axis in (above, below):
            axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("all events", fontsize="small")
    axes[1, 0].set_ylabel("first edge", fontsize="small")
    caption = (
        "First training recording of each class: events of each pixel; ON minus OFF events of the first two frames."
    )
    plots.save(figure, options.out / "recordings.png", caption)
    print(event_counts(splits))


if __name__ == "__main__":
    study.run(main)
