"""Studies of what CSBP promises its users, on data below the ceiling."""
