"""Arrays in, arrays out: similarity, clustering, rank, regression."""
