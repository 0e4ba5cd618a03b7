"""A model that is not ours: where its gradient goes, and what cures it."""
