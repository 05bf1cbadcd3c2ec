"""Make ``tests/data/peers.npz``: spikes, states and gradients of other libraries' neurons, in float64.

    pip install torch spikingjelly snntorch norse sinabs spyx && python tools/make_peers_reference.py

``info`` is JSON: the versions, and three lists of ``[function of docs/neurons.md, arguments]``.
Case n of ``cases`` has input ``x[n]``, ``[B, T]``; ``spikes[n]``; ``state[n]``, ``[B]``, the membrane that the library
holds after the last step; and ``gradient[n]``, of ``sum(upstream * spikes)`` in the input. ``exact.x`` and
``exact.spikes``: inputs that hit the threshold exactly at many steps. ``other.x``, ``other.spikes``: neurons that
docs/neurons.md calls inexpressible. ``surrogate.LABEL``: a derivative, at ``surrogate.x``.
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
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step
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
    if function is spyx_lif:
        spikes, vjp, state = jax.vjp(lambda x: function(x, **arguments), jnp.asarray(x), has_aux=True)
        return spikes, state, vjp(jnp.asarray(upstream))[0]
    x = torch.tensor(x, requires_grad=True)
    spikes, state = function(x, **arguments)
    (spikes * torch.from_numpy(upstream)).sum().backward()
    return tuple(array.detach().numpy() for array in (spikes, state, x.grad))


def derivative(name, spike, x):
    if name.startswith("spyx"):
        return jax.vmap(jax.grad(spike))(jnp.asarray(x))
    x = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(spike(x).sum(), x)[0].numpy()


def main() -> None:
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
    packages = ("torch", "spikingjelly", "snntorch", "norse", "sinabs", "spyx")
    info: dict[str, Any] = {"versions": {package: metadata.version(package) for package in packages}}
    for name, cases in (("cases", CASES), ("other", OTHERS), ("exact", EXACT)):
        info[name] = [(function.__name__, arguments) for function, arguments, _ in cases]
    arrays["info"] = np.array(json.dumps(info))
    np.savez_compressed(pathlib.Path(__file__).parent.parent / "tests" / "data" / "peers.npz", **arrays)


if __name__ == "__main__":
    main()
