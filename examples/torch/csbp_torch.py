"""The chaos term of CSBP for PyTorch, its controls, and a hook that reads tensors of a network. Copy this file.

Source: Z. Wang, P. Tao, L. Chen, "Brain-inspired chaotic spiking backpropagation", National Science Review 11(6),
2024, nwae037. With ``s`` the logistic function and ``h`` a membrane or pre-activation:

    L = L_task + sum over taps of  z term(h)
    term(h) = mean of  -( I0 log s(h/k) + (1 - I0) log(1 - s(h/k)) )
    z[n] = z0 * beta**n

In a loop over batches, with ``taps = Taps(net, ["lif1"])`` before it:

    logits = net(x)
    z = strength(step, z0=1.0, beta=0.999)
    loss = task_loss(logits, y) + sum(z * term(h) for h in taps.pop().values())

A comparison with the term needs plain training with as many tries of its settings, and a control that says whether
chaos matters: :func:`drift` or :func:`linear` in the place of :func:`term`, or noise as large as the term's gradient
(:func:`rms`, :func:`add_noise`, :class:`MPGD`). From csbp_jax, Apache-2.0; values and gradients are tested against it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Cut = tuple[float, float] | None


def term(
    h: Tensor,
    target: float = 0.65,
    scale: float = 10.0,
    *,
    cut: Cut = None,
    reduce: str = "mean",
    channel_axis: int = -1,
) -> Tensor:
    """Compute the chaos term of one tensor at strength 1: ``-(I0 log s(h/k) + (1 - I0) log(1 - s(h/k)))``, reduced.

    Its gradient is ``(s(h/k) - I0) / k`` per element before the reduction. It is computed in float32, or in float64 for
    float64 ``h``. Under float16 its gradient, of order ``1 / (k * h.numel())``, needs ``torch.amp.GradScaler``.

    Args:
      h: membrane or pre-activation, of any shape.
      target: ``I0`` between 0 and 1, the value that ``s(h/k)`` is driven to.
      scale: ``k`` above 0: 10 in the authors' deep networks, 1 in their one-neuron demonstration.
      cut: ``(low, high)``: clamps ``h`` to this range, with zero gradient outside; ``(-10, 9.9)`` in the released code.
      reduce: ``"mean"`` over all elements (the released code), ``"sum"``, or ``"neuron"``: the mean times the number of
        channels, so that the pull on one neuron does not fade with width.
      channel_axis: axis of the channels, for ``"neuron"`` alone: -1 of dense layers, -3 of images.

    Raises:
      ValueError: an argument is out of its range.
      TypeError: ``h`` is not one tensor of floating-point numbers.
    """

    def potential(u: Tensor) -> Tensor:
        return -(target * F.logsigmoid(u) + (1 - target) * F.logsigmoid(-u))

    return _reduced(potential, h, target, scale, cut, reduce, channel_axis)


def drift(
    h: Tensor,
    target: float = 0.65,
    scale: float = 10.0,
    *,
    cut: Cut = None,
    reduce: str = "mean",
    channel_axis: int = -1,
) -> Tensor:
    """Compute a control: the parabola with the chaos term's gradient at h = 0 and at ``h* = k ln(I0 / (1 - I0))``.

    The parabola is ``c (h - h*)**2 / 2`` with ``c = (I0 - 1/2) / (k h*)``. Arguments are those of :func:`term`. Near
    the target it is nearly the same function as the term: equal results then say nothing about chaos.
    """

    def potential(u: Tensor) -> Tensor:
        rest = math.log(target) - math.log1p(-target)
        is_near_half = abs(target - 0.5) < 1e-3  # where the ratio is nearly 0 / 0
        curvature = 0.25 if is_near_half else (target - 0.5) / rest
        return curvature * (u - rest) ** 2 / 2

    return _reduced(potential, h, target, scale, cut, reduce, channel_axis)


def linear(
    h: Tensor,
    target: float = 0.65,
    scale: float = 10.0,
    *,
    cut: Cut = None,
    reduce: str = "mean",
    channel_axis: int = -1,
) -> Tensor:
    """Compute a control whose gradient is everywhere the chaos term's at h = 0; arguments are those of :func:`term`."""
    return _reduced(lambda u: (0.5 - target) * u, h, target, scale, cut, reduce, channel_axis)


def _reduced(
    potential: Callable[[Tensor], Tensor],
    h: Tensor,
    target: float,
    scale: float,
    cut: Cut,
    reduce: str,
    channel_axis: int,
) -> Tensor:
    if not isinstance(h, Tensor) or not h.is_floating_point():
        raise TypeError("h must be one tensor of floating-point numbers, such as a neuron's membrane")
    if not 0 < target < 1:
        raise ValueError(f"target is {target}, but must be between 0 and 1")
    if not scale > 0:
        raise ValueError(f"scale is {scale}, but must be above 0")
    if cut is not None and not cut[0] < cut[1]:
        raise ValueError(f"cut is {cut}, but must be (low, high) with low < high")
    if reduce not in ("mean", "sum", "neuron"):
        raise ValueError(f"reduce is {reduce!r}, but must be 'mean', 'sum' or 'neuron'")
    h = h.to(torch.promote_types(h.dtype, torch.float32))
    if cut is not None:  # not clamp alone, whose gradient at the ends of the range is 1
        is_inside = (h > cut[0]) & (h < cut[1])
        h = torch.where(is_inside, h, h.detach().clamp(*cut))
    loss = potential(h / scale)
    if reduce == "sum":
        return loss.sum()
    return loss.mean() * (h.shape[channel_axis] if reduce == "neuron" else 1)


def strength(step: int, z0: float, beta: float, every: int = 1) -> float:
    """Compute the annealed strength ``z = z0 * beta ** (step // every)``.

    Args:
      step: number of optimiser steps done.
      z0: strength at step 0, 0 or more.
      beta: factor from 0 to 1, applied once every ``every`` steps; choose it so that z has faded by the end.
      every: 1, or the number of steps per epoch to anneal once per epoch.
    """
    if not (step >= 0 and z0 >= 0 and 0 <= beta <= 1 and every >= 1):
        raise ValueError(f"step {step}, z0 {z0}, beta {beta} or every {every} is out of its range")
    return z0 * beta ** (step // every)


Read = Callable[[nn.Module, object], Tensor]


class Taps:
    """Hooks that read tensors of a network as it runs, by the names of its modules.

    Of a neuron of SpikingJelly or snnTorch, the tensor is the membrane after the last time step, as in the authors'
    code; of any other module, such as a convolution or a norm, it is the output at all time steps. A module that is
    called once for each time step is read at each call, and the tensors are stacked along a new first axis. Nothing is
    read under ``torch.no_grad()``, so that an evaluation needs no change.

    >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    >>> taps = Taps(net, ["0"])
    >>> logits = net(torch.zeros(5, 3))
    >>> {name: tuple(h.shape) for name, h in taps.pop().items()}
    {'0': (1, 5, 2)}
    """

    def __init__(self, net: nn.Module, names: Iterable[str] | Mapping[str, Read], every_step: bool = False):
        """Register the hooks.

        Args:
          net: the network.
          names: of modules, as in ``net.named_modules()``; or for each a function ``(module, output) -> tensor``, which
            neurons of your own need: ``{"lif1": lambda neuron, output: neuron.membrane}``.
          every_step: of a neuron, the membranes of all time steps count, in place of the last alone.

        Raises:
          KeyError: there is no such module.
        """
        self._reads: Mapping[str, Read] = names if isinstance(names, Mapping) else {}
        self._every_step = every_step
        self._calls: dict[str, list[Tensor]] = {name: [] for name in names}
        self._last_only: set[str] = set()
        self._is_checked = False
        modules = dict(net.named_modules())
        if unknown := [name for name in self._calls if name not in modules]:
            raise KeyError(f"{unknown[0]}: no such module; there are {', '.join(filter(None, modules))}")
        for name in self._calls:
            if every_step and hasattr(modules[name], "store_v_seq"):
                modules[name].store_v_seq = True
        self._handles = [modules[name].register_forward_hook(self._hook(name)) for name in self._calls]

    def _hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _: object, output: object) -> None:
            if not torch.is_grad_enabled():
                return
            if name in self._reads:
                h = self._reads[name](module, output)
            elif (membrane := _membrane(module, self._every_step)) is not None:
                h = membrane
                if not self._every_step:
                    self._last_only.add(name)
            else:
                h = output
            if not isinstance(h, Tensor):
                raise TypeError(f"{name}: its output is a {type(h).__name__}; give a function that reads the tensor")
            self._calls[name].append(h)

        return hook

    def pop(self) -> dict[str, Tensor]:
        """Return the tensors since the last call by name, ``[calls, ...]`` or a last membrane, and forget them.

        Raises:
          ValueError: a module was not called, carries no gradient, or its outputs are spikes.
        """
        tensors = {}
        for name, calls in self._calls.items():
            if not calls:
                raise ValueError(f"{name}: the network has not called it with gradients since the last pop()")
            h = calls[-1] if name in self._last_only else torch.stack(calls)
            calls.clear()
            if not h.requires_grad:
                raise ValueError(f"{name}: carries no gradient, so the term would have no effect")
            if not self._is_checked:  # once, as it waits for the device
                _refuse_spikes(name, h)
            tensors[name] = h
        self._is_checked = True
        return tensors

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


def _membrane(module: nn.Module, every_step: bool) -> Tensor | None:
    """Return the membrane of a neuron of SpikingJelly or snnTorch after its call; None of another module."""
    if every_step and isinstance(sequence := getattr(module, "v_seq", None), Tensor) and module.step_mode == "m":
        return sequence
    for name in ("v", "mem"):  # of SpikingJelly, and of snnTorch
        membrane = getattr(module, name, None)
        if isinstance(membrane, Tensor) and not isinstance(membrane, nn.Parameter):
            return membrane
    return None


def _refuse_spikes(name: str, h: Tensor) -> None:
    h = h.detach()
    if ((h == 0) | (h == 1)).all() and (h == 1).any():
        raise ValueError(f"{name}: all values are 0 or 1, as spikes; give a function that reads the membrane")


def rms(loss: Tensor, parameters: Iterable[Tensor]) -> list[float]:
    """Compute how large the gradient of a loss is: its root mean square in each parameter.

    Call it with ``z * term(h)`` before ``backward`` in the run with the term, and keep the list of each step. Noise of
    these sizes is as large as the term, without its direction.
    """
    gradients = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    return [0.0 if g is None else float(g.square().mean().sqrt()) for g in gradients]


@torch.no_grad()
def add_noise(
    parameters: Iterable[nn.Parameter], sizes: Sequence[float], generator: torch.Generator | None = None
) -> None:
    """Add normal noise to the gradients, with a standard deviation for each parameter; between backward and step."""
    for p, size in zip(parameters, sizes, strict=True):
        noise = torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
        _add(p, size * noise)


class MPGD:
    """The perturbation of MPGD, ``size (v - multiplicative v' w)`` for each weight w (Lim et al., arXiv:2205.11361).

    v and v' are independent series of Thaler's intermittent map (:func:`mpgd_numbers`).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        multiplicative: float = 0.4,
        gamma: float = 0.7,
        beta: float = 0.5,
        generator: torch.Generator | None = None,
    ):
        """Begin the series.

        Args:
          parameters: whose gradients are changed.
          multiplicative: factor of the part that is proportional to the weights.
          gamma: above 1/2 and below 1; sums of n values of v grow as ``n**gamma``, those of noise as ``n**(1/2)``.
          beta: between -1 and 1; the sign of v changes with the probability ``(1 - beta) / 2`` at each long step.
          generator: of the random numbers.
        """
        if not (0.5 < gamma < 1 and -1 < beta < 1):
            raise ValueError(f"gamma {gamma} must be above 1/2 and below 1, beta {beta} between -1 and 1")
        self._parameters = list(parameters)
        self._states: list[tuple[Tensor, Tensor] | None] = [None] * len(self._parameters)
        self._constants = multiplicative, gamma, beta
        self._generator = generator

    @torch.no_grad()
    def add(self, sizes: Sequence[float]) -> None:
        """Add the next numbers to the gradients, a size for each parameter; between backward and step."""
        for i, (p, size) in enumerate(zip(self._parameters, sizes, strict=True)):
            dtype = torch.promote_types(p.dtype, torch.float32)
            uniform = torch.rand(2, *p.shape, generator=self._generator, dtype=dtype, device=p.device)
            numbers, self._states[i] = mpgd_numbers(p, self._states[i], uniform, *self._constants)
            _add(p, size * numbers)


def mpgd_numbers(
    w: Tensor,
    state: tuple[Tensor, Tensor] | None,
    uniform: Tensor,
    multiplicative: float = 0.4,
    gamma: float = 0.7,
    beta: float = 0.5,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Compute ``v - multiplicative v' w`` of the next step, where v and v' are ``chi d`` of two orbits y:

        s = y**(1 - gamma) + (1 + y)**(1 - gamma) - 1,   y <- s**(1 / (1 - gamma)) mod 1
        v = chi d where s <= 1,   chi d / (1 - 2**(1 - gamma)) elsewhere, after chi <- -chi with p = (1 - beta) / 2
        d = ((1 - 2**(gamma-1)) a**a (1-gamma) Gamma(1-a) cos(a pi/2) / (2**(1-gamma) - 1))**-gamma,   a = 1 / gamma

    Args:
      w: weights.
      state: orbits y and signs chi, ``[2, *w.shape]``; None at the first step, which draws y from the map's invariant
        density.
      uniform: uniform random numbers from 0 to 1, ``[2, *w.shape]``.

    Returns:
      The numbers, of the shape of w, and the next state.
    """
    a, power = 1 / gamma, 1 - gamma
    stable = a**a * power * math.gamma(1 - a) * math.cos(a * math.pi / 2) / (2**power - 1)
    d = ((1 - 2**-power) * stable) ** -gamma
    digits = uniform * 2**12 % 1  # further random digits
    if state is None:
        s, chi = 2**power * uniform, torch.ones_like(uniform)  # s over 2**power is the distribution function of y
        is_right = s > 1
        flips = digits < 0.5
    else:
        y, chi = state
        s = y**power + torch.expm1(power * torch.log1p(y))
        is_right = s > 1
        flips = is_right & (uniform < (1 - beta) / 2)
    chi = torch.where(flips, -chi, chi)
    # The difference from 1 has lost its last digits, without which orbits would merge, or fall on 0: they are drawn.
    eps = torch.finfo(uniform.dtype).eps
    y = s ** (1 / power)
    y = torch.where(is_right, (y - 1).clamp(min=eps / 2) + eps * digits, y)
    v = chi * torch.where(is_right, d / (1 - 2**power), d)
    return v[0] - multiplicative * v[1] * w, (y, chi)


def _add(p: nn.Parameter, numbers: Tensor) -> None:
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    p.grad += numbers.to(p.dtype)
