def coordinate_check(*a): return None
