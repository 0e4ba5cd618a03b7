"""The engine: pure JAX, arrays in, arrays out; it knows no family by name and does no work on the host."""
