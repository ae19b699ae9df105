"""Our BGP side against real routers: the real ExaBGP, the real bridge, and BIRD 2 in namespaces of its own."""
