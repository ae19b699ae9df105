# In the place of /etc/rc.subr where there is no FreeBSD: what rc.subr(8) says of run_rc_command, as far as our services
# use it, written for the tests. Beside it in order of precedence: $TEST_FOLDER/rc.conf, then the environment.

warn()
{
	echo "WARNING: $*" >&2
}

checkyesno()
{
	eval "_value=\${$1-}"
	case $_value in
	[Yy][Ee][Ss]) return 0 ;;
	*) return 1 ;;
	esac
}

load_rc_config()
{
	[ ! -e "$TEST_FOLDER/rc.conf" ] || . "$TEST_FOLDER/rc.conf"
}

# a process that ended may be nobody's to reap here
_alive()
{
	case $(ps -o stat= -p "$1") in
	'' | Z*) return 1 ;;
	esac
}

wait_for_pids()
{
	for _pid; do
		while _alive "$_pid"; do
			sleep 0.05
		done
	done
}

_find_rc_pid()
{
	rc_pid=
	[ -n "${pidfile-}" ] && [ -s "$pidfile" ] || return 0
	read -r rc_pid <"$pidfile"
	_alive "$rc_pid" || rc_pid=
}

run_rc_command()
{
	rc_arg=$1
	_prefix=
	case $rc_arg in
	fast*) _prefix=fast rc_fast=yes ;;
	one*) _prefix=one; eval "$rcvar=YES" ;;
	esac
	rc_arg=${rc_arg#"$_prefix"}
	case " start stop restart status ${extra_commands-} " in
	*" $rc_arg "*) ;;
	*) echo "$0: unknown directive '$rc_arg'." >&2; return 1 ;;
	esac
	_find_rc_pid
	case $rc_arg:$rc_pid in
	status:* | stop:?*) ;;
	*)
		if ! checkyesno "$rcvar"; then
			[ -n "${rc_fast-}" ] || echo "Cannot '$rc_arg' $name. Set $rcvar to YES in /etc/rc.conf"
			return 0
		fi
		;;
	esac
	if [ "$rc_arg" = start ] && [ -z "${rc_fast-}" ] && [ -n "$rc_pid" ]; then
		echo "$name already running?  (pid=$rc_pid)." >&2
		return 1
	fi
	eval "_cmd=\${${rc_arg}_cmd-} _precmd=\${${rc_arg}_precmd-} _postcmd=\${${rc_arg}_postcmd-}"
	if [ -n "$_cmd" ]; then
		[ -z "$_precmd" ] || eval "$_precmd" || return 1
		eval "$_cmd" || return 1
		[ -z "$_postcmd" ] || eval "$_postcmd"
		return
	fi
	case $rc_arg in
	status)
		if [ -z "$rc_pid" ]; then
			echo "$name is not running."
			return 1
		fi
		echo "$name is running as pid $rc_pid."
		;;
	start)
		if [ -n "${required_files-}" ] && [ ! -r "$required_files" ]; then
			warn "$required_files is not readable."
			return 1
		fi
		[ -z "$_precmd" ] || eval "$_precmd" || return 1
		[ -z "${required_modules-}" ] || echo "kldload $required_modules" >>"$TEST_FOLDER/calls"
		echo "Starting $name."
		eval "_flags=\${${name}_flags-}"
		eval "$command $_flags $command_args" || return 1
		[ -z "$_postcmd" ] || eval "$_postcmd"
		;;
	stop)
		if [ -z "$rc_pid" ]; then
			[ -n "${rc_fast-}" ] && return 0
			echo "$name not running? (check $pidfile)." >&2
			return 1
		fi
		[ -z "$_precmd" ] || eval "$_precmd" || return 1
		echo "Stopping $name."
		kill -TERM "$rc_pid" || return 1
		wait_for_pids "$rc_pid"
		[ -z "$_postcmd" ] || eval "$_postcmd"
		;;
	restart)
		[ -z "$_precmd" ] || eval "$_precmd" || return 1
		(run_rc_command "${_prefix}stop")
		(run_rc_command "${_prefix}start")
		;;
	esac
}
