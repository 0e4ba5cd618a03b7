"""Families over depth: each step draws weights of its own, unless they are tied."""
