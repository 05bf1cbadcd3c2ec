"""The user's own data: class folders, arrays, and files to predict."""
