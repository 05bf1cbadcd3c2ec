"""A plugin file whose callback evaluates, adds metrics, and has a state, which is empty at first."""

import numpy as np

from tests.support.small_run import SMALL

config = SMALL.replace(epochs=3)


class Smoothed:
    """Smooths the training loss, and keeps the test loss of each epoch."""

    def __init__(self):
        self.mean, self.history = 0.0, np.zeros((0, 2), np.float32)

    def __call__(self, trainer, row):
        test = trainer.evaluate("test")
        self.mean = 0.5 * self.mean + row["task_loss"]
        self.history = np.concatenate([self.history, [[row["epoch"], test["loss"]]]], dtype=np.float32)
        return {"loss": self.mean, "epochs": len(self.history)}

    def state(self):
        return {"mean": self.mean, "history": self.history}

    def restore(self, state):
        self.mean, self.history = state["mean"], state["history"]


def callbacks(config):
    return [Smoothed()]
