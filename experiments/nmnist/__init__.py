"""CSBP, plain backpropagation and the drift on 1,100 recordings of N-MNIST, by ten-fold cross-validation."""
