"""Tests of CARP and pfsync in step with BGP."""
