"""The way from a user's arguments to a labelled Dataset: plan, chunks, sweep, dataset."""
