"""Train at low rank: RaRe, factorized layers, Frobenius normalisation."""
