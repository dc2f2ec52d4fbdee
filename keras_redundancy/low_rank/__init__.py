"""Train for low rank: RaRe, factorized layers, Frobenius norms."""
