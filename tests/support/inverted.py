"""A source that augments, as those of pictures do."""

import numpy as np

from csbp_jax.data.source import DataSource


class Inverted(DataSource):
    """Pictures of another source, in [0, 1], which ``take`` inverts where it draws less than 1/2."""

    num_uniforms = 1

    def __init__(self, source):
        self.source, self.classes = source, source.classes

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        return self.source[i]

    def take(self, indices, uniforms):
        batch = super().take(indices, uniforms)
        drawn = uniforms[:, :, None, None, None]
        return batch | {"x": np.where(drawn < 0.5, 1 - batch["x"], batch["x"])}
