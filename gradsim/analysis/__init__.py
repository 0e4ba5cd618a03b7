"""What a Dataset says: growth, horizon, critical gain."""
