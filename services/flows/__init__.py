"""What flows mean: pure values and rules, without any input or output."""
