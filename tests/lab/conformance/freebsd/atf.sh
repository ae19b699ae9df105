# What FreeBSD's shell tests need of atf-sh(3) and atf-check(1), for the lab: sh atf.sh SCRIPT --list | SCRIPT CASE.
# Written from atf-sh-api(3), atf-check(1) and atf-test-case(4). Prints one word and its reason on descriptor 3:
# passed, skipped, failed, expected_failure; what the test prints goes where this script's output goes.

_script=$1
_wanted=$2
_work=$3
_cases=
_expected=

atf_get_srcdir() { dirname "$_script"; }
atf_test_case() { eval "_cleanup_$1=\${2:-}"; }
atf_add_test_case() { _cases="$_cases $1"; }
atf_set() { eval "_var_$(echo "$1" | tr . _)=\$2"; }
atf_get() { eval "echo \"\$_var_$(echo "$1" | tr . _)\""; }
atf_config_get() { echo "${2:-}"; }
atf_config_has() { return 1; }

_result() { printf '%s %s\n' "$1" "${2:-}" >&3; }
atf_pass() { _result passed; exit 0; }
atf_skip() { _result skipped "$*"; exit 0; }
atf_fail() {
	if [ -n "$_expected" ]; then _result expected_failure "$_expected: $*"; else _result failed "$*"; fi
	exit 1
}
atf_expect_fail() { _expected=$*; }
atf_expect_pass() { _expected=; }
atf_require_prog() { command -v "$1" >/dev/null || atf_skip "needs $1, which is not here"; }
atf_check_equal() {
	[ "$1" = "$2" ] || atf_fail "$1 != $2"
}

# BSD's sed -i takes the suffix as an argument of its own.
sed() {
	if [ "$1" = -i ] && [ "$2" = "" ]; then shift 2; command sed -i "$@"; else command sed "$@"; fi
}

_said() { # FILE ACTION: does a file hold what -o or -e asks for?
	case $2 in
	ignore) ;;
	empty) [ ! -s "$1" ] ;;
	not-empty) [ -s "$1" ] ;;
	inline:*) printf '%b' "${2#inline:}" | cmp -s - "$1" ;;
	match:*) grep -E -q -- "${2#match:}" "$1" ;;
	not-match:*) ! grep -E -q -- "${2#not-match:}" "$1" ;;
	file:*) cmp -s "${2#file:}" "$1" ;;
	save:*) cp "$1" "${2#save:}" ;;
	*) atf_fail "atf_check: the lab does not know $2" ;;
	esac
}

atf_check() { # [-s QUALIFIER] [-o ACTION]... [-e ACTION]... [-x] COMMAND...
	_status=exit:0
	_outs=''
	_errs=''
	_shell=''
	OPTIND=1
	while getopts s:o:e:r:x _letter; do
		case $_letter in
		s) _status=$OPTARG ;;
		o) _outs="$_outs
$OPTARG" ;;
		e) _errs="$_errs
$OPTARG" ;;
		r) ;; # how long to try again: what is checked here is there at once
		x) _shell=1 ;;
		*) atf_fail "atf_check: the lab does not know this option" ;;
		esac
	done
	shift $((OPTIND - 1))
	if [ -n "$_shell" ]; then sh -c "$*"; else "$@"; fi >"$_work/out" 2>"$_work/err" </dev/null
	_code=$?
	case $_status in
	ignore) ;;
	exit:*) [ $_code -eq "${_status#exit:}" ] || _wrong "exit $_code, not ${_status#exit:}" "$@" ;;
	not-exit:*) [ $_code -ne "${_status#not-exit:}" ] || _wrong "exit $_code" "$@" ;;
	*) _wrong "atf_check: the lab does not know $_status" "$@" ;;
	esac
	_each out "${_outs:-empty}" "$@"
	_each err "${_errs:-empty}" "$@"
}

_each() { # STREAM ACTIONS COMMAND...: an action on each line
	_stream=$1
	_actions=$2
	shift 2
	while IFS= read -r _action; do
		[ -z "$_action" ] || _said "$_work/$_stream" "$_action" || _wrong "std$_stream is not \"$_action\"" "$@"
	done <<LINES
$_actions
LINES
}

_wrong() { # WHY COMMAND...
	_why=$1
	shift
	echo "$ $*"
	cat "$_work/out" "$_work/err"
	atf_fail "$*: $_why ($(head -c 300 "$_work/out" "$_work/err" | tr '\n' ' '))"
}

# shellcheck disable=SC1090 # the tests are FreeBSD's, and come from elsewhere
. "$_script"
atf_init_test_cases
if [ "$_wanted" = --list ]; then
	for _case in $_cases; do echo "$_case"; done
	exit 0
fi
cd "$_work" || exit 1
"${_wanted}_head"
for _program in $(atf_get require.progs); do atf_require_prog "$_program"; done
(
	"${_wanted}_body"
	if [ -n "$_expected" ]; then _result failed "expected to fail ($_expected), but passed"; else _result passed; fi
)
if [ "$(eval "echo \$_cleanup_$_wanted")" = cleanup ]; then "${_wanted}_cleanup"; fi
exit 0
