"""Measurements on disk: kept chunk by chunk, read lazily, gone on with."""
