"""Every command; what they have in common is one folder up."""
