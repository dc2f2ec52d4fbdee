"""A recipe, and the smaller stock model that is made from it."""
