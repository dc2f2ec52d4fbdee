"""Small things that all rooms use: checked arguments, tables, files."""
