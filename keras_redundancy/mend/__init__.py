"""Both models side by side: what the smaller one reads is made up for."""
