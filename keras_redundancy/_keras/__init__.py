"""What Keras does not export: graphs, optimizers, and what it saves."""
