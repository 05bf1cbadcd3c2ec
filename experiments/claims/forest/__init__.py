"""Study of whether CSBP improves any method of training spiking networks."""
