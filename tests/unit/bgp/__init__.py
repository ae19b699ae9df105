"""BGP without routers: what is decided, what is said, what is understood."""
