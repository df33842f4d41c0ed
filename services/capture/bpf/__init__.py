"""The kernel's side of counting: a program, and how it is brought in."""
