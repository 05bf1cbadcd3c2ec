"""An experiment outside the package: ``csbp_jax train examples/own_experiment.py``.

The neuron is an adaptive leaky integrate-and-fire one (ALIF; Bellec et al., NeurIPS 2018): each spike raises its
threshold by ``beta``, and the rise decays by ``rho`` per step. The data are an npz file, made if it is missing.

    u[t] = decay v[t-1] + x[t];  s[t] = H(u[t] - 1 - beta a[t-1]);  v[t] = (1 - s[t]) u[t];  a[t] = rho a[t-1] + s[t]
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import surrogate
from csbp_jax.config import Chaos, Config, Data, Model, Optimizer

config = Config(
    epochs=3,
    batch_size=64,
    data=Data(name="bursts"),
    model=Model(name="dense", input_shape=(), classes=0, time_steps=8, features=(16,)),  # (), 0: as the data have them
    chaos=Chaos(z0=(0.1,), beta=0.2, taps=("fc1.membrane",), reduce="neuron"),  # z fades within the three epochs
    optimizer=Optimizer(lr=0.01),
)


def data(config, data_dir):
    """Bursts on one of two groups of ten noisy channels: x [N, T, 20], y [N]."""
    file = pathlib.Path(data_dir) / "bursts.npz"
    if not file.exists():
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 640)
        x = rng.random((640, 8, 20)) < np.where(np.arange(20) // 10 == y[:, None], 0.4, 0.2)[:, None]
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, x=x, y=y)
    arrays = np.load(file)
    return {"train": (arrays["x"][:512], arrays["y"][:512]), "test": (arrays["x"][512:], arrays["y"][512:])}


def neuron(config, beta=0.5, rho=0.9):
    spike, decay = surrogate.triangle(config.model.neuron.surrogate_param), config.model.neuron.decay

    class ALIF:
        def trace(self, x, state=None):
            def step(state, current):
                v, a = state["membrane"], state["adaptation"]
                u = decay * v + current
                s = spike(u - 1 - beta * a)
                return {"membrane": (1 - s) * u, "adaptation": rho * a + s}, (s, u)

            rest = jnp.zeros_like(x[:, 0])
            state, (s, u) = jax.lax.scan(step, state or {"membrane": rest, "adaptation": rest}, jnp.moveaxis(x, 1, 0))
            return jnp.moveaxis(s, 0, 1), state, jnp.moveaxis(u, 0, 1)

        def __call__(self, x, state=None):
            return self.trace(x, state)[:2]

    return ALIF()
