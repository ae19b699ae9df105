"""jail(8) of FreeBSD 13.2 for the lab: `conf` reads jail.conf(5), `run` starts and stops jails.

Follows usr.sbin/jail/{jail.c,command.c,config.c,state.c,jailparse.y,jaillex.l}, jail(8), jail.conf(5) and the
recorded transcript 5-jail.txt, its unflattering answers included. Left out, and refused with a word: ip_hostname,
-h, -J, -l, -u, -U, -mr and the old command line. mount, mount.fstab and the like are read and do nothing: a lab
jail has what its path has there. (`.include` came with 14.0: to a 13.2 it is an unknown parameter.) Jails named
together are handled one after the other; FreeBSD runs their commands side by side.
"""
