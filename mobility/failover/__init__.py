"""CARP and pfsync in step with BGP: who of a pair of hosts carries the traffic."""
