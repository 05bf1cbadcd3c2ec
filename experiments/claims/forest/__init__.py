"""Study of whether CSBP helps each of nine methods of training spiking networks."""
