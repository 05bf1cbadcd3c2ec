"""From the config to an optax transformation whose learning rate is left to the caller."""

import optax

from csbp_jax.config import Optimizer


def build(config: Optimizer, epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """Gradient to update, for a peak learning rate of 1.

    The learner multiplies the update by its traced ``lr``, so that one compilation serves every learning rate. All
    transformations after which the rate comes last are linear in it, so this equals ``optax.sgd(lr * schedule)``
    and its kin.
    """
    stages = []
    if config.clip is not None:
        stages.append(optax.clip_by_global_norm(config.clip))
    if config.weight_decay and config.name != "adamw":
        stages.append(optax.add_decayed_weights(config.weight_decay))
    if config.name == "sgd":
        stages.append(optax.trace(config.momentum))
    else:
        stages.append(optax.scale_by_adam(eps_root=config.eps_root))
    if config.weight_decay and config.name == "adamw":
        stages.append(optax.add_decayed_weights(config.weight_decay))
    stages.append(optax.scale_by_learning_rate(schedule(config, epochs, steps_per_epoch)))
    return optax.chain(*stages)


def schedule(config: Optimizer, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Share of the peak learning rate at each step: linear warm-up, then constant, cosine to 0, or steps."""
    warmup = config.warmup_epochs * steps_per_epoch
    after = {
        "constant": lambda: optax.constant_schedule(1.0),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, epochs * steps_per_epoch - warmup),
        "step": lambda: optax.exponential_decay(
            1.0, config.step_epochs * steps_per_epoch, config.step_factor, staircase=True
        ),
    }[config.schedule]()
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(1 / warmup, 1.0, warmup - 1), after], [warmup])
