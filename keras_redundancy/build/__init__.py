"""The smaller stock model: every layer made anew, its values set."""
