"""The families: each file says what is drawn, and one step."""
