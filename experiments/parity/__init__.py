"""The networks and recipes of the literature against independent PyTorch references, in float64.

    python -m experiments.parity.make    writes tests/data/parity* from the references (needs torch)
    python -m experiments.parity.released FOLDER    the same for the released code itself, from clones
    python -m experiments.parity         writes docs/checks/parity from those files and this package

Both sides draw weights, running statistics and batches by the same formula (cases.py), so the files only hold results.
"""
