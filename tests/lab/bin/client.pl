#!/usr/bin/perl
# What every FreeBSD command of the lab is on this side: send argv to the lab kernel, print what it answers, and, when
# ordered to, enter a jail's namespaces and go on there. Without a single module, because it is started some 25 times per
# jail start and each module costs more than all the rest. Frames: see tests/lab/kernel/server.py.
my ($name) = $0 =~ m{([^/]+)$};
socket(K, 1, 1, 0) && connect(K, pack("S a108", 1, "@SOCKET@"))
    or do { print STDERR "$name: the lab kernel is gone (@SOCKET@: $!)\n"; exit 70 };

sub ask {
    my $body = "c" . join("", map { "$_\0" } @_);
    my $frame = pack("N", length $body) . $body;
    my $sent = 0;
    while ($sent < length $frame) {
        $sent += syswrite(K, $frame, length($frame) - $sent, $sent) || gone();
    }
}

sub take {
    my ($want, $data) = ($_[0], "");
    while (length $data < $want) {
        sysread(K, $data, $want - length $data, length $data) || gone();
    }
    return $data;
}

sub gone { print STDERR "$name: the lab kernel went away\n"; exit 70 }

sub enter {
    my ($path, $kind) = @_;
    return if $path eq "";
    open(my $space, "<", $path) or do { print STDERR "$name: jail_attach: $!\n"; exit 1 };
    syscall(@SETNS@, fileno($space) + 0, $kind + 0) == 0 or do { print STDERR "$name: jail_attach: $!\n"; exit 1 };
    close($space);
}

$| = 1;
ask($name, @ARGV);
while (1) {
    my $body = take(unpack("N", take(4)));
    my $kind = substr($body, 0, 1, "");
    if ($kind eq "1") { print STDOUT $body }
    elsif ($kind eq "2") { print STDERR $body }
    elsif ($kind eq "x") { exit $body }
    elsif ($kind eq "e") {
        my ($net, $uts, $root, $user, $how, @command) = split /\0/, $body, -1;
        pop @command;
        enter($net, @NEWNET@);
        enter($uts, @NEWUTS@);
        if ($root ne "") { chroot($root) && chdir("/") or do { print STDERR "$name: chroot: $root: $!\n"; exit 1 } }
        if ($user ne "") {
            my ($login, undef, $uid, $gid, undef, undef, undef, $home, $shell) = getpwnam($user)
                or do { print STDERR "$name: $user: no such user\n"; exit 1 };
            ($(, $)) = ($gid, "$gid $gid"); ($<, $>) = ($uid, $uid);
        }
        if ($how eq "lab") { ($name) = $command[0] =~ m{([^/]+)$}; ask($name, @command[1 .. $#command]); next }
        exec { $command[0] } @command;
        print STDERR "$name: execvp: $command[0]: $!\n";
        exit 1;
    }
    else { gone() }
}
