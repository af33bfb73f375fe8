"""Profiles in the field's formats."""
