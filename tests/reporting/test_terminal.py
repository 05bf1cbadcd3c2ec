"""Progress of training, of a sweep and of the preparation of data, on a terminal and in a log."""

import dataclasses
import re

import pytest

from csbp_jax.config import Chaos
from csbp_jax.reporting import terminal

ROW = {
    "epoch": 30, "step": 1170, "task_loss": 0.00277, "chaos_loss": 10.3, "z": {"conv1.membrane": 0.471},
    "accuracy": 1.0, "examples_per_second": 1911.3, "validation_accuracy": 0.994,
}  # fmt: skip


def plain(text):
    """Text without the sequences that move a terminal's cursor and colour."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


LARGE = ROW | {"epoch": 300, "step": 468_000, "examples_per_second": 12345.6}


@pytest.mark.parametrize("row", [ROW, LARGE, {k: v for k, v in LARGE.items() if k != "validation_accuracy"}])
def test_progress_is_one_line_in_80_columns(row, capsys):
    line = terminal.progress_line(row, row["epoch"])
    is_epoch = "validation_accuracy" in row
    assert len(line) <= 80 and ("ex/s" in line) == ("val 99.4%" in line) == is_epoch
    with terminal.progress(terminal.Console(width=80, force_terminal=True), 10**6, 0) as show:
        show(1170, line)
    output = capsys.readouterr().out
    assert line in output
    bar = output.split("\r")[-1]
    assert is_epoch or ("\u2501" in bar and len(plain(bar).strip()) <= 80)


def test_a_title_is_not_broken_at_the_width_of_its_table(capsys):
    console = terminal.Console(width=80)
    terminal.print_table(console, "confusion: a row for each true class", ["", "a"], [["a", "1"]])
    assert capsys.readouterr().out.startswith("confusion: a row for each true class\n")


@pytest.mark.parametrize("measured, row", [
    ({"r2": (0.0897, -0.0123), "mae": (0.856, 0.759)}, "│ test R2 │ -0.0123 │ -0.0123 │ -0.0123 │"),
    ({"accuracy": (0.9944, 0.9972)}, "│ test accuracy │ 99.72% │ 99.72% │ 99.72% │"),
])  # fmt: skip
def test_the_result_fits_80_columns(measured, row, tmp_path, capsys):
    """Of all kinds of weights, and of a regression, whose two measures were cut to "-0.0…"."""
    epoch: dict[str, float] = {"epoch": 30, "test_count": 1000}
    for name, (validation, test) in measured.items():
        epoch |= {f"validation_{name}": validation, f"test_{name}": test}
    result = {"seconds": 9.0, **dict.fromkeys(("last", "chosen", "ema"), epoch)}
    terminal.print_result(terminal.Console(width=80), tmp_path / "run", result, tmp_path, None)
    table = [line for line in capsys.readouterr().out.splitlines() if line[:1] in tuple("┏┃┡│└")]
    assert all(len(line) <= 80 and "…" not in line for line in table)
    assert row in [" ".join(line.split()) for line in table]
    assert sum("30" in line for line in table) == 1  # the row of epochs, which is not cut


def test_the_line_of_an_epoch_stays_above_the_bar(capsys):
    console = terminal.Console(width=80, force_terminal=True)
    with terminal.progress(console, 1170, 0) as show:
        show(39, terminal.progress_line({k: v for k, v in ROW.items() if k != "validation_accuracy"}, 30))
        console.print(terminal.progress_line(ROW, 30), soft_wrap=True)
    lines = re.split(r"[\r\n]", plain(capsys.readouterr().out))
    assert sum("val 99.4%" in line for line in lines) == 1


@pytest.mark.parametrize("values, shown", [((15.0, 15.0), "15"), ((15.0, 3.0, 7.0), "3 to 15"), ((), "0")])
def test_z_is_that_of_a_tap_and_not_a_sum(values, shown):
    row = ROW | {"z": {f"conv{number}.membrane": z for number, z in enumerate(values, start=1)}}
    assert f" chaos 10.3 z {shown} 1911 ex/s" in terminal.progress_line(row, 30)


@pytest.mark.parametrize("norms, line", [
    ((2.0, 1.0), "chaos gradient 0.5 x task gradient at step 0 (usual: 0.3 to 3; CIFAR-10 0.01)"),
    ((2.0, 0.0), "no chaos term: plain backpropagation"),
    ((0.0, 0.5), "at step 0 the task gradient is 0, and the norm of the chaos gradient 0.5"),
])  # fmt: skip
def test_the_share_of_the_chaos_term_is_one_line(norms, line):
    assert terminal.gradient_share(dict(zip(("task", "chaos"), norms, strict=True))) == line


@pytest.mark.parametrize("beta, anneal, epochs, line", [
    (0.9, "epoch", 3, "z is still 81% of z0 in the last epoch; chaos.beta 0.2 would leave 4% (--chaos.beta 0.2)"),
    (0.9, "epoch", 10, "z is still 39% of z0 in the last epoch; chaos.beta 0.7 would leave 4% (--chaos.beta 0.7)"),
    (1.0, "step", 10, "z is still 100% of z0 in the last step; chaos.beta 0.9918 would leave 4% (--chaos.beta 0.9918)"),
    (0.5, "epoch", 1, "z is still 100% of z0 in the last epoch; chaos.anneal step and chaos.beta 0.919 would leave 4% "
                      "(--chaos.anneal step --chaos.beta 0.919)"),
    (0.9, "epoch", 30, None),
    (0.9, "step", 10, None),
])  # fmt: skip
def test_a_term_that_does_not_fade_is_named_with_the_beta_that_lets_it(beta, anneal, epochs, line):
    """39 steps an epoch."""
    taps = ("conv1.membrane", "conv2.membrane")
    chaos = Chaos(z0=(0.0, 3.0), beta=beta, anneal=anneal, taps=taps)
    assert terminal.unfaded(chaos, epochs, 39 * epochs) == line
    assert terminal.unfaded(dataclasses.replace(chaos, z0=(0.0,)), epochs, 39 * epochs) is None
    assert terminal.unfaded(dataclasses.replace(chaos, beta=1.0), 1, 1) is None


def test_control_characters_of_what_is_printed_are_escaped(capsys):
    """Names of classes, of a run from someone else: they could clear the screen, or set the clipboard."""
    console = terminal.Console(width=80, highlight=False, markup=False)
    terminal.print_table(console, "of \x1b[2J", ["name", "\u202etac"], [["cat\x1b]0;owned\x07", "1\n2"]])
    console.print("N\x1b]0;pwn\x07", soft_wrap=True)
    text = capsys.readouterr().out
    assert not any(c in text for c in "\x1b\x07\u202e")
    assert all(name in text for name in (r"N\x1b]0;pwn\x07", r"cat\x1b]0;owned\x07", r"\u202etac"))
    assert "1\\n2" not in text  # a line break of a cell is meant


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, as a list of one number that a test changes."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_when_a_stage_begins_then_ever_later_and_when_it_ends(clock, capsys):
    """After 5 seconds, 5, 10 and 20 more, then every 30."""
    with terminal.stages(terminal.Console(width=80)) as show:
        for second in range(101):
            clock[0] = float(second)
            show("read train", 10 + 2 * second, 1000)
        show("sort and write train", 0, 0)
        show("read train", 1, 1000)  # again
        show("read train", 1000, 1000)
        show("download x.zip", 5, 0)
    assert capsys.readouterr().out.splitlines() == [
        "read train, 1%",
        "read train, 2%, about 0:08:10 left",
        "read train, 3%, about 0:08:05 left",
        "read train, 5%, about 0:07:55 left",
        "read train, 9%, about 0:07:35 left",
        "read train, 15%, about 0:07:05 left",
        "read train, 21%, about 0:06:35 left",
        "sort and write train",
        "read train, 0%",
        "read train, 100%",
        "download x.zip",
    ]


def test_the_time_left_of_a_sweep_leaves_compilation_out(clock, capsys):
    """40 epochs of a second each, of which the first and the 21st compile for 30 more."""
    with terminal.logged_progress(terminal.Console(width=80), 40) as show:
        show(0, "compiling", False)
        for epoch in range(1, 41):
            compiles = epoch in (1, 21)
            clock[0] += 31.0 if compiles else 1.0
            show(epoch, f"epoch {epoch}", not compiles)
    assert capsys.readouterr().out.splitlines() == [
        "compiling",
        "epoch 1, 2%",
        "epoch 6, 15%, about 0:00:34 left",
        "epoch 11, 28%, about 0:00:29 left",
        "epoch 21, 52%, about 0:00:19 left",
        "epoch 40, 100%",
    ]


def frames(text):
    """The bars as they were drawn last, ``{stage: what follows the bar}``."""
    lines = re.split(r"[\r\n]+", plain(text))
    return {line.split("\u2501")[0].strip(): line.split()[-1] for line in lines if "\u2501" in line}


def test_a_stage_that_begins_again_is_not_shown_as_finished(capsys):
    with terminal.stages(terminal.Console(width=80, force_terminal=True)) as show:
        show("read train", 5, 5)
        show("read test", 5, 5)
        show("read train", 1, 5)
    shown = frames(capsys.readouterr().out)
    assert shown["read train"] == "--:--" and shown["read test"] == "00:00"


def test_a_stage_of_unknown_length_shows_its_time_and_ends_with_the_next(capsys):
    with terminal.stages(terminal.Console(width=80, force_terminal=True)) as show:
        show("sort and write train", 0, 0)
        show("decode train", 1, 2)
    output = capsys.readouterr().out
    assert "0:00:00" in output and frames(output)["sort and write train"] == "00:00"
