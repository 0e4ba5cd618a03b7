"""Families over time: each step reads an input, and all share one draw of the weights, unless they are untied."""
