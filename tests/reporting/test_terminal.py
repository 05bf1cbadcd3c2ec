"""Progress of training on a terminal."""

import io

from csbp_jax.reporting import terminal

ROW = {
    "epoch": 30, "step": 1170, "task_loss": 0.00277, "chaos_loss": 10.3, "z": {"conv1.membrane": 0.471},
    "accuracy": 1.0, "examples_per_second": 1911.3, "validation_accuracy": 0.994,
}  # fmt: skip


def test_nothing_of_a_line_of_progress_is_cut_in_80_columns():
    out = io.StringIO()
    line = terminal.progress_line(ROW, 30)
    assert "1911 examples/s" in line
    with terminal.progress(terminal.Console(file=out, width=80, force_terminal=True), 1170, 0) as show:
        show(1170, line)
    text = out.getvalue()
    assert "…" not in text and all(word in text for word in line.split())
