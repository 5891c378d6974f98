# What FreeBSD's tests ask of atf-sh(3), for `python -m tests.freebsd`, as far as they ask. Run by bash: like FreeBSD's sh,
# and unlike dash, it knows `[ a == b ]`.
#
#   atf.sh FILE            the names of its test cases
#   atf.sh FILE CASE       run one, and its cleanup; the last line is "passed", "skipped: why" or "failed: why"
atf_srcdir=$(cd "$(dirname "$1")" && pwd)
cases=

atf_get_srcdir() { echo "$atf_srcdir"; }
atf_set() { :; }
atf_require_prog() { command -v "$1" >/dev/null || atf_skip "there is no $1"; }
atf_test_case() { :; }
atf_add_test_case() { cases="$cases $1"; }

# Where the end of a test is written: a test may end in a subshell.
atf_skip() { echo "skipped: $*" >"$atf_result"; exit 0; }
atf_fail() { echo "failed: $*" >"$atf_result"; exit 1; }
atf_pass() { exit 0; }

# atf_check [-s exit:N] [-o KIND] [-e KIND] COMMAND...; without words a command succeeds and prints nothing.
atf_check() {
    local status=0 out=empty err=empty option OPTARG OPTIND=1 got
    while getopts s:o:e: option; do
        case $option in
        s) status=${OPTARG#exit:} ;;
        o) out=$OPTARG ;;
        e) err=$OPTARG ;;
        esac
    done
    shift $((OPTIND - 1))
    echo "Executing command [ $* ]"
    "$@" >"$atf_work/out" 2>"$atf_work/err"
    got=$?
    [ "$got" = "$status" ] || atf_fail "$*: status $got, not $status: $(cat "$atf_work/err")"
    _atf_output "$out" "$atf_work/out" "$*" && _atf_output "$err" "$atf_work/err" "$*"
}

_atf_output() {
    case $1 in
    ignore) ;;
    empty) [ ! -s "$2" ] || atf_fail "$3: printed $(cat "$2")" ;;
    save:*) cp "$2" "${1#save:}" ;;
    inline:*) printf "${1#inline:}" | cmp -s - "$2" || atf_fail "$3: printed $(cat "$2")" ;;
    match:*) grep -q -e "${1#match:}" "$2" || atf_fail "$3: printed $(cat "$2")" ;;
    *) atf_fail "atf_check: $1 is not known" ;;
    esac
}

set -o pipefail
atf_work=$(mktemp -d)
atf_result=$atf_work/result
trap 'rm -rf "$atf_work"' EXIT
. "$1"
atf_init_test_cases
if [ $# = 1 ]; then
    printf '%s\n' $cases
    exit
fi
mkdir "$atf_work/cwd" && cd "$atf_work/cwd" || exit
(set -e +e; "${2}_head"; "${2}_body") || [ -s "$atf_result" ] || echo "failed: status $?" >"$atf_result"
("${2}_cleanup")
[ -s "$atf_result" ] || echo passed >"$atf_result"
cat "$atf_result"
