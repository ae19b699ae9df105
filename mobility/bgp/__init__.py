"""BGP: ExaBGP's configuration and grammar, the bridge that ExaBGP runs, and the agent's end of it."""
