"""The laboratory: measurements that write the documentation's figures. Not in the wheel."""
