# bash completion of jail(8), jls(8), jexec(8), ipnat(8), rctl(8) and jailctl(8). It needs no bash-completion, and works in one.
#
# Nothing below a jail's root is looked at: a jail could make that lead anywhere. So commands and users are the host's.

_jailng_parameters=/usr/share/jailng/parameters # made by share/generate: name, who knows it, kind, words

# The names of the running jails.
_jailng_running() { jls name 2>/dev/null; }

# The names of the configured jails: with an argument, of that file.
_jailng_configured() {
    local line
    jail ${1:+-f "$1"} -e '|' 2>/dev/null | while IFS= read -r line; do
        [[ "|$line" =~ \|name=([\"\']?)([^|]*) ]] && echo "${BASH_REMATCH[2]%"${BASH_REMATCH[1]}"}"
    done
}

# Parameters that one of the programs in $1 knows, as they are asked for ($2 is "read") or given.
_jailng_names() {
    local name who kind _
    [[ -r $_jailng_parameters ]] || return
    while read -r name who kind _; do
        [[ $1 == *$who* ]] || continue
        if [[ $2 == read ]]; then
            echo "$name"
        elif [[ $kind == bool ]]; then
            echo "$name"
            [[ $name == *.* ]] && echo "${name%.*}.no${name##*.}" || echo "no$name"
        else
            echo "$name="
        fi
    done <"$_jailng_parameters"
}

# Values of the parameter $1.
_jailng_values() {
    local name who kind words
    case $1 in
    name | depend) _jailng_running ;;
    *_user) compgen -u ;;
    interface | vnet.interface) compgen -W "$(cd /sys/class/net && echo *)" ;;
    esac
    [[ -r $_jailng_parameters ]] || return
    while read -r name who kind words; do
        [[ $name == "$1" ]] || continue
        [[ $kind == bool ]] && words="true false"
        [[ -z $words ]] || printf '%s\n' $words
    done <"$_jailng_parameters"
}

# Offer those lines of the input that begin with $1. One that ends in "=" or "," goes on without a space.
_jailng_offer() {
    local line
    while IFS= read -r line; do
        [[ $line == "$1"* ]] || continue
        [[ $line == *[!A-Za-z0-9_.,=+:/@%-]* ]] && printf -v line '%q' "$line"
        COMPREPLY+=("$prefix$line")
    done
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=,] ]] && compopt -o nospace 2>/dev/null
    return 0
}

_jailng_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen ${prefix:+-P "$prefix"} "$1" -- "$2")
}

# What the words before the cursor say: letters of options; the word to complete, and the option or "name=" before it;
# what of that is part of the same word (prefix), which it is where readline does not break words at "=".
# $1 are the letters that take an argument.
_jailng_look() {
    local at word
    letters='' current=${COMP_WORDS[COMP_CWORD]} before='' prefix='' words=() file=''
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${COMP_WORDS[at]}
        if [[ $before == --libxo && $word == = ]]; then
            :
        elif [[ -n $before ]]; then
            [[ $before == -f ]] && file=$word
            before=
        elif ((${#words[@]} == 0)) && [[ $word == -[!-]* ]]; then
            letters+=${word#-}
            [[ $1 == *${word: -1}* ]] && before=-${word: -1}
        elif ((${#words[@]} == 0)) && [[ $word == -- ]]; then
            :
        elif [[ $word == --libxo ]]; then
            before=--libxo
        elif [[ $word == = && ${#words[@]} -gt 0 ]]; then
            words[-1]+='='
        elif ((${#words[@]} > 0)) && [[ ${words[-1]} == *= ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
    done
    if [[ $before == --libxo && $current == = ]]; then
        current=
    elif [[ $current == = ]] && ((${#words[@]} > 0)); then
        before=${words[-1]}= current=
    elif ((${#words[@]} > 0)) && [[ ${words[-1]} == *= && ${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then
        before=${words[-1]}
    elif [[ $current == [a-z]*=* || $current == --libxo=* ]]; then
        prefix=${current%%=*}= current=${current#*=}
        before=$prefix
    fi
}

_jailng_jail() {
    local letters current before prefix words file
    _jailng_look efJnpsuU
    COMPREPLY=()
    case $before in
    -f | -J | mount.fstab= | exec.consolelog=) _jailng_files -f "$current" && return ;;
    path=) _jailng_files -d "$current" && return ;;
    -u | -U) _jailng_offer "$current" < <(compgen -u) && return ;;
    -n) _jailng_offer "$current" < <(_jailng_running) && return ;;
    -e | -p | -s) return ;;
    command=) mapfile -t COMPREPLY < <(compgen -c -- "$current") && return ;;
    *=) _jailng_offer "$current" < <(_jailng_values "${before%=}") && return ;;
    esac
    if [[ " ${words[*]}" == *' command'[=\ ]* ]]; then
        _jailng_files -f "$current"
    elif ((${#words[@]} == 0)) && [[ $current == -* ]]; then
        _jailng_offer "$current" < <(printf '%s\n' -c -m -r -R -C -e -f -J -p -u -U -n -s -h -i -l -d -q -v --plan)
    elif [[ $letters == *[rR]* && $letters != *[cm]* || $letters == *C* ]]; then
        _jailng_offer "$current" < <(_jailng_running; [[ $letters == *R* ]] || _jailng_configured "$file"; echo '*')
    elif [[ $letters == *[cm]* ]]; then
        _jailng_offer "$current" < <(
            ((${#words[@]} > 0)) || _jailng_configured "$file"
            ((${#words[@]} > 0)) || [[ $letters != *m* ]] || _jailng_running
            _jailng_names jail+both give
        )
    elif ((${#words[@]} == 0)); then
        _jailng_files -d "$current"
    else
        _jailng_files -f "$current"
    fi
}

_jailng_jls() {
    local letters current before prefix words file
    _jailng_look j
    COMPREPLY=()
    case $before in
    -j) _jailng_offer "$current" < <(_jailng_running) && return ;;
    --libxo | --libxo=) _jailng_offer "$current" < <(printf '%s\n' json json,pretty xml xml,pretty text) && return ;;
    esac
    if [[ $current == -* ]]; then
        _jailng_offer "$current" < <(printf '%s\n' -c -d -h -j -N -n -q -s -v --libxo)
    else
        _jailng_offer "$current" < <(_jailng_names jls+both read; echo all)
    fi
}

_jailng_jexec() {
    local letters current before prefix words file
    _jailng_look deuU
    COMPREPLY=()
    case $before in
    -u | -U) _jailng_offer "$current" < <(compgen -u) && return ;;
    -d | -e) return ;;
    esac
    case ${#words[@]} in
    0)
        if [[ $current == -* ]]; then
            _jailng_offer "$current" < <(printf '%s\n' -l -d -e -u -U)
        else
            _jailng_offer "$current" < <(_jailng_running)
        fi
        ;;
    1) mapfile -t COMPREPLY < <(compgen -c -- "$current") ;;
    *) _jailng_files -f "$current" ;;
    esac
}

_jailng_ipnat() {
    local letters current before prefix words file
    _jailng_look f
    COMPREPLY=()
    if [[ $before != -f && $current == -* ]]; then
        _jailng_offer "$current" < <(printf '%s\n' -C -F -d -f -h -l -n -p -R -r -s -v)
    else
        _jailng_files -f "$current"
    fi
}

# Rules and filters of rctl(8), part by part; readline breaks words at ":", so that the last part is the current one.
_jailng_rctl() {
    local prefix='' current='' at part
    for ((at = 1; at <= COMP_CWORD; at++)); do
        [[ ${COMP_WORDS[at]} == [:=]* || $current == *[:=] ]] || current=''
        current+=${COMP_WORDS[at]}
    done
    part=${current##*[:=/]}
    COMPREPLY=()
    [[ $COMP_WORDBREAKS == *:* ]] || prefix=${current%"$part"}
    if [[ $current == -* ]]; then
        _jailng_offer "$current" < <(printf '%s\n' -a -h -l -n -r -u)
        return
    fi
    compopt -o nospace 2>/dev/null
    case $current in
    *=* | *:*:*:*:*) ;;
    *:*:*:*) _jailng_offer "$part" < <(printf '%s\n' deny= log= throttle= sigterm= sigkill= sighup= sigstop= sigxcpu=) ;;
    *:*:*) _jailng_offer "$part" < <(
        printf '%s:\n' cputime datasize stacksize coredumpsize memoryuse memorylocked maxproc openfiles vmemoryuse \
            pseudoterminals swapuse nthr msgqqueued msgqsize nmsgq nsem nsemop nshm shmsize wallclock pcpu readbps \
            writebps readiops writeiops disk
    ) ;;
    jail:* | j:*) _jailng_offer "$part" < <(_jailng_running | while IFS= read -r name; do echo "$name:"; done) ;;
    *:*) ;;
    *) _jailng_offer "$part" < <(printf '%s\n' jail: process:) ;;
    esac
}

_jailng_jailctl() {
    local prefix='' current=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} before=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        _jailng_offer "$current" < <(jailctl help 2>/dev/null | while read -r word name _; do
            [[ $word == jailctl && $name != shim ]] && echo "$name"
        done)
    elif [[ $before == -[jJ] ]]; then
        _jailng_offer "$current" < <(_jailng_running)
    elif [[ $current == -* ]]; then
        # Letters that stand together, as in [-aLr], are taken apart first.
        _jailng_offer "$current" < <(jailctl "$verb" --help 2>/dev/null |
            sed -E ':a; s/\[-(\w)(\w+)\]/-\1 [-\2]/; ta' | grep -o -- '--[a-z-]*\|-[A-Za-z0-9]\>')
    elif [[ $verb == @(audit|console|destroy|join|signal|watch) && $COMP_CWORD == 2 ]]; then
        _jailng_offer "$current" < <(_jailng_running)
    elif [[ $before == --file || $before == -f && $verb == @(info|list|restart|start|stop) ]]; then
        _jailng_files -f "$current"
    elif [[ $verb == @(egress|rdr) && $COMP_CWORD == 2 ]]; then
        _jailng_offer "$current" < <([[ $verb == egress ]] || printf '%s\n' add del clear; echo list)
    elif [[ $verb == log && $COMP_CWORD == 2 ]]; then
        _jailng_offer "$current" < <(_jailng_running; printf '%s\n' verify key)
    elif [[ $verb == @(drops|egress|log|packets|rdr|top) ]]; then
        _jailng_offer "$current" < <(_jailng_running)
    elif [[ $verb == @(info|list|logs|restart|start|stop) ]]; then
        _jailng_offer "$current" < <({ [[ $verb == start ]] || _jailng_running; _jailng_configured; } | sort -u)
    else
        _jailng_files -f "$current"
        [[ $verb != cp ]] || _jailng_offer "$current" < <(_jailng_running | sed 's/$/:/')
        [[ $verb != @(export|sessions|destroy|join|signal) ]] || _jailng_offer "$current" < <(_jailng_running)
        [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *: ]] || compopt -o nospace 2>/dev/null
    fi
}

complete -F _jailng_jail jail
complete -F _jailng_jls jls
complete -F _jailng_jexec jexec
complete -F _jailng_ipnat ipnat
complete -F _jailng_rctl rctl
complete -F _jailng_jailctl jailctl
