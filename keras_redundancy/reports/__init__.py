"""What was found, to read and to look at."""
