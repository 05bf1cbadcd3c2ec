"""Tables of runs of given accuracies."""

import pandas as pd

from csbp_jax import RunTable


def table_of(accuracies):
    """The table of tests of ``{case: {arm: accuracy of each seed}}``."""
    rows = [
        {"case": case, "arm": arm, "draw": 0, "role": "test", "seed": seed, "last_test_accuracy": accuracy}
        for case, arms in accuracies.items()
        for arm, values in arms.items()
        for seed, accuracy in enumerate(values)
    ]
    return RunTable(pd.DataFrame(rows).assign(last_validation_accuracy=0.9), (), ("last_test_accuracy",))
