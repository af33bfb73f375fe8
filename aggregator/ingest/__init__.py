"""Batches and stack definitions: checked, given dense ids, stored exactly once."""
