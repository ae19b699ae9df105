"""jail(8) of FreeBSD 13.2 for the lab: `conf` reads jail.conf(5), `run` starts and stops jails.

Follows usr.sbin/jail/{jail.c,command.c,config.c,state.c,jailparse.y,jaillex.l}, jail(8), jail.conf(5) and the
recorded transcript 5-jail.txt, its unflattering answers included. Left out, and refused with a word: mounts,
-d, -h, -i, -J, -l, -m, -n, -p, -s, -u, -U and the old command line. mount.devfs is read and does nothing: a lab
jail's /dev is what its path has there. (`.include` came with 14.0: on 13.2, as here, it is an unknown
parameter.) Jails named together are handled one after the other; FreeBSD runs their commands side by side.
"""
