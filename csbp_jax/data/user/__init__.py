"""Data of the user: class folders, arrays, files to predict."""
