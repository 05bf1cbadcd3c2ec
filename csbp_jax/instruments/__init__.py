"""The laboratory: the instruments of dynamics on the training of a config."""
