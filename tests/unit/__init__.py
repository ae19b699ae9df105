"""Tests that need neither root nor network."""
