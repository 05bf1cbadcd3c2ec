"""Free Spoken Digit Dataset, tested on a speaker who has not been heard in training: george; others by
``--data.test-speaker``.

``make train DATASET=fsdd_speaker``; all else as fsdd (docs/results/presets/fsdd_speakers has all six speakers).
"""

import dataclasses

from csbp_jax.configs import fsdd

config = dataclasses.replace(fsdd.config, data=dataclasses.replace(fsdd.config.data, test_speaker="george"))
