"""NoiseOut: units that predict noise become correlated and are merged."""
