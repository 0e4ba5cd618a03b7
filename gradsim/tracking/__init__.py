"""What training does to each parameter of any model: an optimizer that records, and what its records say."""
