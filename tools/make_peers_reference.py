"""Make ``tests/data/peers.npz`` and ``peers_states.npz``: other libraries' neurons, in float64.

    pip install torch spikingjelly snntorch norse sinabs spyx && python tools/make_peers_reference.py

``info`` is JSON: the versions, and three lists of ``[function of docs/neurons.md, arguments]``.
Case n of ``cases`` has input ``x[n]``, ``[B, T]``; ``spikes[n]``; ``state[n]``, ``[B]``, the membrane that the library
holds after the last step; and ``gradient[n]``, of ``sum(upstream * spikes)`` in the input. ``exact.x`` and
``exact.spikes``: inputs that hit the threshold exactly at many steps. ``other.x``, ``other.spikes``: neurons that
docs/neurons.md calls inexpressible. ``surrogate.LABEL``: a derivative, at ``surrogate.x``.

In ``peers_states.npz``, of neurons other than LIF: ``info``, with ``versions`` and ``cases``; ``upstream``; and of each
case ``N.x``, ``N.spikes``, ``N.gradient`` and ``N.states``, ``[number of states, B]``, which the library holds after
the last step.
"""

import json
import math
import pathlib
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import snntorch
import spyx
import torch
from flax import nnx
from norse.torch.functional.lif import LIFFeedForwardState, LIFParameters, lif_feed_forward_step
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step
from norse.torch.functional.lsnn import LSNNFeedForwardState, LSNNParameters, lsnn_feed_forward_step
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.functional.threshold import threshold
from sinabs import activation
from sinabs.activation import SingleExponential, SingleSpike
from sinabs.layers import LIF
from spikingjelly.activation_based import neuron, surrogate

jax.config.update("jax_enable_x64", True)
B, T = 12, 10


def spikingjelly_lif(x, **arguments):
    return _multi_step(neuron.LIFNode(**arguments), x)


def spikingjelly_if(x, **arguments):
    return _multi_step(neuron.IFNode(**arguments), x)


def spikingjelly_plif(x, init_tau, **arguments):
    node = neuron.ParametricLIFNode(init_tau, **arguments).double()
    torch.nn.init.constant_(node.w, -math.log(init_tau - 1))  # again, since the library rounds it to float32
    return _multi_step(node, x)


def _multi_step(node, x):
    node.step_mode = "m"
    return node(x.T).T, node.v


def snntorch_leaky(x, cell=snntorch.Leaky, **arguments):
    return _over_time(cell(**arguments), torch.zeros_like(x[:, 0]), x)


def snntorch_lapicque(x, **arguments):
    return snntorch_leaky(x, snntorch.Lapicque, **arguments)


def norse_lif_box(x, dt=0.001, reset_method="value", **arguments):
    arguments = {name: torch.tensor(value, dtype=torch.float64) for name, value in arguments.items()}
    p = LIFBoxParameters(reset_method={"value": reset_value, "subtract": reset_subtract}[reset_method], **arguments)
    state = LIFBoxFeedForwardState(v=torch.zeros_like(x[:, 0]) + p.v_leak)
    spikes, state = _over_time(lambda x_t, state: lif_box_feed_forward_step(x_t, state, p, dt), state, x)
    return spikes, state.v


def _over_time(step, state, x):
    spikes = []
    for x_t in x.T:
        spike, state = step(x_t, state)
        spikes.append(spike)
    return torch.stack(spikes, 1), state


def sinabs_lif(x, tau_mem, spike_fn="SingleSpike", reset_fn="MembraneSubtract", **arguments):
    functions = {"spike_fn": getattr(activation, spike_fn), "reset_fn": getattr(activation, reset_fn)()}
    layer = LIF(tau_mem, **functions, **arguments).double()
    return layer(x), layer.v_mem


def spyx_lif(x, beta, threshold=1.0):
    layer = spyx.nn.LIF((), beta, threshold, rngs=nnx.Rngs(0))
    spikes, state = spyx.nn.run(layer, x.T)
    return spikes.T, state


def spikingjelly_cuba(x, v_threshold, v_reset, detach_reset=False, **arguments):
    node = neuron.CUBALIFNode(**arguments, v_threshold=v_threshold, v_reset=v_reset)
    node.detach_reset = detach_reset  # no argument of the constructor
    spikes, v = _multi_step(node, x)
    return spikes, (v, node.c)


def spikingjelly_clif(x, **arguments):
    node = neuron.ComplementaryLIFNode(**arguments)
    spikes, v = _multi_step(node, x)
    return spikes, (v, node.m)


def spikingjelly_ilif(x, levels, **arguments):
    node = neuron.ILIFNode(surrogate_function=surrogate.MultiLevelSpikeCount(levels), **arguments)
    spikes, v = _multi_step(node, x)
    return spikes, (v,)


def spikingjelly_psn(x, weight, bias):
    return _with_weights(neuron.PSN(len(weight)), x, weight, [[b] for b in bias])


def spikingjelly_masked_psn(x, weight, bias, k, lambda_):
    node = neuron.MaskedPSN(k, len(weight), step_mode="m").double()
    node.lambda_ = lambda_
    return _with_weights(node, x, weight, [[b] for b in bias])


def spikingjelly_sliding_psn(x, weight, bias):
    return _with_weights(neuron.SlidingPSN(len(weight), step_mode="m"), x, weight, bias)


def _with_weights(node, x, weight, bias):
    node = node.double()
    node.weight.data, node.bias.data = (torch.tensor(values, dtype=torch.float64) for values in (weight, bias))
    return node(x.T).T, ()


def snntorch_synaptic(x, **arguments):
    cell = snntorch.Synaptic(**arguments)

    def step(x_t, state):
        spikes, *state = cell(x_t, *state)
        return spikes, state

    spikes, (current, membrane) = _over_time(step, [torch.zeros_like(x[:, 0])] * 2, x)
    return spikes, (membrane, current)


def norse_lif(x, dt=0.001, **arguments):
    p = LIFParameters(**{name: torch.tensor(value, dtype=torch.float64) for name, value in arguments.items()})
    rest = torch.zeros_like(x[:, 0])
    state = LIFFeedForwardState(v=rest, i=rest)
    spikes, state = _over_time(lambda x_t, state: lif_feed_forward_step(x_t, state, p, dt), state, x)
    return spikes, (state.v, state.i)


def norse_lsnn(x, dt=0.001, **arguments):
    p = LSNNParameters(**{name: torch.tensor(value, dtype=torch.float64) for name, value in arguments.items()})
    rest = torch.zeros_like(x[:, 0])
    state = LSNNFeedForwardState(v=rest, i=rest, b=rest + p.v_th)
    spikes, state = _over_time(lambda x_t, state: lsnn_feed_forward_step(x_t, state, p, dt), state, x)
    return spikes, (state.v, state.b)


def spyx_cuba_lif(x, alpha, beta, threshold=1.0):
    layer = spyx.nn.CuBaLIF((1,), alpha, beta, threshold, rngs=nnx.Rngs(0))
    spikes, state = spyx.nn.run(layer, x.T[..., None])
    return spikes[..., 0].T, (state[:, 0], state[:, 1])


Case = tuple[Callable[..., Any], dict[str, Any], float]
CASES: list[Case] = [  # function, arguments, factor of the input
    *(
        (spikingjelly_lif, {"tau": 4.0, "decay_input": True, "v_reset": v_reset, "detach_reset": detach}, 4)
        for v_reset in (0.0, None, -0.25)
        for detach in (False, True)
    ),
    (spikingjelly_lif, {"tau": 1.25, "decay_input": False, "v_threshold": 0.75}, 1),
    (spikingjelly_lif, {"tau": 1.25, "decay_input": False, "v_reset": -0.25}, 1.5),
    (spikingjelly_if, {"v_reset": 0.25}, 1),
    (spikingjelly_if, {"v_reset": None, "detach_reset": True}, 1),
    (spikingjelly_plif, {"init_tau": 4.0, "v_reset": None}, 4),
    (spikingjelly_plif, {"init_tau": 4.0, "decay_input": False}, 1),
    *((snntorch_leaky, {"beta": 0.75, "reset_mechanism": reset}, 1) for reset in ("subtract", "zero", "none")),
    (snntorch_leaky, {"beta": 0.75, "threshold": 0.5, "reset_mechanism": "subtract"}, 1),
    (snntorch_leaky, {"beta": 0.5, "reset_mechanism": "subtract", "reset_delay": False}, 0.75),
    (snntorch_leaky, {"beta": 0.75, "reset_mechanism": "zero", "reset_delay": False}, 1),
    (snntorch_lapicque, {"R": 2.0, "C": 4.0, "reset_mechanism": "subtract"}, 4),
    (snntorch_lapicque, {"R": 2.0, "C": 4.0, "reset_mechanism": "none"}, 4),
    (norse_lif_box, {"tau_mem_inv": 250.0}, 4),
    (norse_lif_box, {"tau_mem_inv": 250.0, "v_leak": 0.25, "v_th": 0.75, "v_reset": -0.25}, 4),
    (norse_lif_box, {"tau_mem_inv": 250.0, "v_leak": 0.25, "reset_method": "subtract"}, 4),
    (spyx_lif, {"beta": 0.75}, 1),
    (spyx_lif, {"beta": 0.75, "threshold": 0.5}, 1),
    (sinabs_lif, {"tau_mem": 4.0}, 4),
    (sinabs_lif, {"tau_mem": 4.0, "norm_input": False}, 1),
    (sinabs_lif, {"tau_mem": 4.0, "norm_input": False, "reset_fn": "MembraneReset"}, 1),
]
# All numbers are multiples of powers of 1/2, so that membranes at the threshold are exact.
EXACT: list[Case] = [
    (spikingjelly_lif, {"tau": 2.0}, 2),
    (spikingjelly_lif, {"tau": 2.0, "decay_input": False, "v_reset": None}, 1),
    (spikingjelly_if, {"v_reset": 0.0}, 1),
    *((snntorch_leaky, {"beta": 0.5, "reset_mechanism": reset}, 1) for reset in ("subtract", "zero", "none")),
    (snntorch_lapicque, {"R": 2.0, "C": 1.0, "reset_mechanism": "subtract"}, 1),
    (norse_lif_box, {"dt": 0.5, "tau_mem_inv": 1.0}, 2),
    (norse_lif_box, {"dt": 0.5, "tau_mem_inv": 1.0, "reset_method": "subtract"}, 2),
    (spyx_lif, {"beta": 0.5}, 1),
    (sinabs_lif, {"tau_mem": math.inf, "norm_input": False}, 1),
    (sinabs_lif, {"tau_mem": math.inf, "norm_input": False, "reset_fn": "MembraneReset"}, 1),
]
OTHERS: list[Case] = [
    (sinabs_lif, {"tau_mem": 4.0, "spike_fn": "MultiSpike", "norm_input": False}, 1.5),
    (snntorch_leaky, {"beta": 0.75, "reset_mechanism": "subtract", "reset_delay": False}, 2),
    (snntorch_lapicque, {"R": 2.0, "C": 4.0, "reset_mechanism": "zero"}, 4),
]


def _drawn(*shape: int) -> Any:
    return (np.random.default_rng(len(shape)).normal(0, 0.75, shape) - 0.5 * (shape == (T,))).round(3).tolist()


STATES: list[Case] = [
    (spikingjelly_cuba, {"c_decay": 0.5, "v_decay": 0.75, "v_threshold": 1.0, "v_reset": 0.0}, 1),
    (spikingjelly_cuba, {"c_decay": 0.25, "v_decay": 0.5, "v_threshold": 0.75, "v_reset": None}, 1),
    (spikingjelly_cuba, {"c_decay": 0.5, "v_decay": 0.75, "v_threshold": 1.0, "v_reset": 0.0, "detach_reset": True}, 1),
    (snntorch_synaptic, {"alpha": 0.5, "beta": 0.75}, 1),
    (snntorch_synaptic, {"alpha": 0.5, "beta": 0.75, "reset_mechanism": "none"}, 1),
    (snntorch_synaptic, {"alpha": 0.25, "beta": 0.5, "reset_delay": False}, 0.65),
    (norse_lif, {"tau_syn_inv": 500.0, "tau_mem_inv": 250.0}, 4),
    (norse_lif, {"tau_syn_inv": 250.0, "tau_mem_inv": 500.0, "v_th": 0.75}, 2),
    (norse_lsnn, {"tau_syn_inv": 500.0, "tau_mem_inv": 250.0, "tau_adapt_inv": 125.0, "beta": 0.5}, 4),
    (norse_lsnn, {"tau_syn_inv": 500.0, "tau_mem_inv": 500.0, "tau_adapt_inv": 250.0, "v_th": 0.5, "beta": 0.25}, 2),
    (spyx_cuba_lif, {"alpha": 0.5, "beta": 0.75}, 1),
    (spikingjelly_clif, {"tau": 2.0}, 1),
    (spikingjelly_clif, {"tau": 1.25, "v_threshold": 0.75}, 1),
    (spikingjelly_ilif, {"levels": 4}, 2),
    (spikingjelly_ilif, {"levels": 2, "tau": 2.0, "v_threshold": 0.5, "detach_reset": True}, 1),
    (spikingjelly_psn, {"weight": _drawn(T, T), "bias": _drawn(T)}, 1),
    (spikingjelly_masked_psn, {"weight": _drawn(T, T), "bias": _drawn(T), "k": 3, "lambda_": 1.0}, 1),
    (spikingjelly_masked_psn, {"weight": _drawn(T, T), "bias": _drawn(T), "k": 2, "lambda_": 0.25}, 1),
    (spikingjelly_sliding_psn, {"weight": _drawn(4), "bias": -0.5}, 1),
]
SURROGATES = {
    "spikingjelly Sigmoid(3)": surrogate.Sigmoid(3.0),
    "spikingjelly ATan(3)": surrogate.ATan(3.0),
    "spikingjelly PiecewiseQuadratic(2)": surrogate.PiecewiseQuadratic(2.0),
    "spikingjelly PiecewiseExp(2)": surrogate.PiecewiseExp(2.0),
    "spikingjelly Erf(3)": surrogate.Erf(3.0),
    "spikingjelly Rect(2)": surrogate.Rect(2.0),
    "spikingjelly SoftSign(3)": surrogate.SoftSign(3.0),
    "spikingjelly SuperSpike(3)": surrogate.SuperSpike(3.0),
    "snntorch atan(3)": snntorch.surrogate.atan(3.0),
    "snntorch fast_sigmoid(10)": snntorch.surrogate.fast_sigmoid(10.0),
    "snntorch sigmoid(5)": snntorch.surrogate.sigmoid(5.0),
    "norse super(10)": lambda x: threshold(x, "super", 10.0),
    "norse triangle(0.5)": lambda x: threshold(x, "triangle", 0.5),
    "norse heavi_erfc(3)": lambda x: threshold(x, "heavi_erfc", 3.0),
    "norse tanh(3)": lambda x: threshold(x, "tanh", 3.0),
    "sinabs SingleExponential(0.25)": lambda x: SingleSpike.apply(x + 1, 1.0, SingleExponential(0.25)),
    "spyx superspike(10)": spyx.axn.superspike(10.0),
    "spyx arctan(3)": spyx.axn.arctan(3.0),
    "spyx triangular(2)": spyx.axn.triangular(2.0),
    "spyx boxcar(0.5, 3)": spyx.axn.boxcar(0.5, 3.0),
    "spyx tanh(3)": spyx.axn.tanh(3.0),
}


def run(function: Callable[..., Any], arguments: dict[str, Any], x: Any, upstream: np.ndarray) -> tuple[Any, Any, Any]:
    """``(spikes, state, gradient in x)``."""
    if function in (spyx_lif, spyx_cuba_lif):
        spikes, vjp, state = jax.vjp(lambda x: function(x, **arguments), jnp.asarray(x), has_aux=True)
        return spikes, state, vjp(jnp.asarray(upstream))[0]
    x = torch.tensor(x, requires_grad=True)
    spikes, state = function(x, **arguments)
    (spikes * torch.from_numpy(upstream)).sum().backward()
    states = np.array([array.detach() for array in state]) if isinstance(state, tuple) else state.detach().numpy()
    return spikes.detach().numpy(), states, x.grad.numpy()


def derivative(name, spike, x):
    if name.startswith("spyx"):
        return jax.vmap(jax.grad(spike))(jnp.asarray(x))
    x = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(spike(x).sum(), x)[0].numpy()


def main() -> None:
    folder = pathlib.Path(__file__).parent.parent / "tests" / "data"
    packages = ("torch", "spikingjelly", "snntorch", "norse", "sinabs", "spyx")
    info: dict[str, Any] = {"versions": {package: metadata.version(package) for package in packages}}
    np.savez_compressed(folder / "peers.npz", **one_state(info))
    np.savez_compressed(folder / "peers_states.npz", **several_states(info))


def several_states(info: dict[str, Any]) -> dict[str, Any]:
    """The arrays of ``peers_states.npz``."""
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {"upstream": rng.normal(size=(B, T))}
    for n, (function, options, factor) in enumerate(STATES):
        x = factor * rng.normal(0.35, 0.8, (B, T))
        spikes, states, gradient = run(function, options, x, arrays["upstream"])
        arrays |= {f"{n}.x": x, f"{n}.spikes": spikes.astype(np.uint8)}
        arrays |= {f"{n}.states": np.asarray(states), f"{n}.gradient": gradient}
    cases = [(function.__name__, options) for function, options, _ in STATES]
    return arrays | {"info": np.array(json.dumps(info | {"cases": cases}))}


def one_state(info: dict[str, Any]) -> dict[str, Any]:
    """The arrays of ``peers.npz``."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"upstream": rng.normal(size=(B, T))}
    for prefix, cases in (("", CASES), ("other.", OTHERS), ("exact.", EXACT)):
        draw = (lambda: rng.integers(-1, 6, (B, T)) / 4) if cases is EXACT else (lambda: rng.normal(0.35, 0.8, (B, T)))
        x = np.stack([factor * draw() for _, _, factor in cases])
        results = [run(f, options, x_n, arrays["upstream"]) for (f, options, _), x_n in zip(cases, x, strict=True)]
        spikes, state, gradient = (np.stack(column) for column in zip(*results, strict=True))
        arrays |= {f"{prefix}x": x, f"{prefix}spikes": spikes.astype(np.uint8)}
        arrays |= {"state": state, "gradient": gradient} if cases is CASES else {}
    arrays["surrogate.x"] = x = np.append(np.linspace(-1.013, 1, 40), 0.0)
    arrays |= {f"surrogate.{name}": np.asarray(derivative(name, spike, x)) for name, spike in SURROGATES.items()}
    lists = {
        name: [(function.__name__, arguments) for function, arguments, _ in cases]
        for name, cases in (("cases", CASES), ("other", OTHERS), ("exact", EXACT))
    }
    return arrays | {"info": np.array(json.dumps(info | lists))}


if __name__ == "__main__":
    main()
