# fish completion of jail(8), jls(8), jexec(8), ipnat(8), rctl(8) and jailctl(8): one file under six names, of which one is enough.
#
# Nothing below a jail's root is looked at: a jail could make that lead anywhere. So commands and users are the host's.

functions -q __jailng_running; and return

set -g __jailng_parameters /usr/share/jailng/parameters # made by share/generate: name, who takes it, kind, words

function __jailng_running
    jls name 2>/dev/null
end

function __jailng_configured
    set -l words (commandline -opc)
    set -l file
    if set -l at (contains -i -- -f $words)
        set file -f $words[(math $at + 1)]
    end
    jail $file -e '|' 2>/dev/null | string match -rg '(?:^|\|)name=["\']?([^|]*?)["\']?(?:\||$)'
end

# Parameters that one of the programs in $argv[1] takes; with "read" as they are asked for.
function __jailng_names
    test -r $__jailng_parameters; or return
    while read -l name who kind words
        string match -q "*$who*" $argv[1]; or continue
        if test "$argv[2]" = read
            echo $name
        else if test $kind = bool
            echo $name
            string replace -r '([^.]+)$' 'no$1' $name
        else
            echo $name=
            for word in (string split -n ' ' $words)
                echo $name=$word
            end
        end
    end <$__jailng_parameters
    if test "$argv[2]" != read
        for jail in (__jailng_running)
            printf '%s\n' name=$jail depend=$jail
        end
    end
end

# Whether one of the letters in $argv[1] is among the options, and none of those in $argv[2].
function __jailng_asks
    set -l letters (commandline -opc | string match -r '^-[^-].*')
    string match -qr "[$argv[1]]" -- "$letters"; or return 1
    test -z "$argv[2]"; or not string match -qr "[$argv[2]]" -- "$letters"
end

function __jailng_users
    string split -f 1 : </etc/passwd
end

# How many words there are that are no options, the command left out; the letters in $argv[1] take an argument.
function __jailng_words
    set -l count 0
    set -l argument 0
    for word in (commandline -opc)[2..]
        if test $argument = 1
            set argument 0
        else if string match -qr "^-[^-]*[$argv[1]]\$" -- $word
            set argument 1
        else if not string match -q -- '-*' $word
            set count (math $count + 1)
        end
    end
    echo $count
end

complete -c jail -f
complete -c jail -s c -d 'create'
complete -c jail -s m -d 'change'
complete -c jail -s r -d 'remove'
complete -c jail -s R -d 'remove at once, without the configuration'
complete -c jail -s C -d 'clean up after a jail that is gone'
complete -c jail -s e -x -d 'print the configured jails'
complete -c jail -s f -r -F -d 'read this configuration'
complete -c jail -s J -r -F -d 'write the parameters of started jails'
complete -c jail -s p -x -d 'run so many commands at a time'
complete -c jail -s u -x -a '(__jailng_users)' -d 'run commands as this user of the host'
complete -c jail -s U -x -a '(__jailng_users)' -d 'run commands as this user of the jail'
complete -c jail -s n -x -a '(__jailng_running)' -d 'name'
complete -c jail -s s -x -d 'securelevel'
complete -c jail -s h -d 'addresses of the host name'
complete -c jail -s i -d 'print the jid alone'
complete -c jail -s l -d 'exec.clean'
complete -c jail -s d -d 'nothing any more'
complete -c jail -s q -d 'print errors alone'
complete -c jail -s v -d 'print each step'
complete -c jail -l plan -d 'print what would be done'
complete -c jail -n '__jailng_asks rRC cm' -a '(__jailng_running)' -d 'running jail'
complete -c jail -n '__jailng_asks rC Rcm' -a '(__jailng_configured)' -d 'configured jail'
complete -c jail -n '__jailng_asks cm; and test (__jailng_words efJnpsuU) = 0' -a '(__jailng_configured)' -d 'configured jail'
complete -c jail -n '__jailng_asks m; and test (__jailng_words efJnpsuU) = 0' -a '(__jailng_running)' -d 'running jail'
complete -c jail -n '__jailng_asks cm' -a '(__jailng_names jail+both)' -d 'parameter'
complete -c jail -n 'string match -qr "^(path|mount.fstab|exec.consolelog)=" -- (commandline -ct)' -F
complete -c jail -n 'not __jailng_asks cmrRC' -F

complete -c jls -f
complete -c jls -s c -d 'only tell whether the jail exists'
complete -c jls -s d -d 'dying jails too'
complete -c jls -s h -d 'a header'
complete -c jls -s j -x -a '(__jailng_running)' -d 'this jail alone'
complete -c jls -s N -d 'names in place of jids'
complete -c jls -s n -d 'name=value'
complete -c jls -s q -d 'quotation marks'
complete -c jls -s s -d 'parameters for jail(8)'
complete -c jls -s v -d 'several lines a jail'
complete -c jls -l libxo -x -a 'json json,pretty xml xml,pretty text' -d 'another style'
complete -c jls -a '(__jailng_names jls+both read)' -d 'parameter'
complete -c jls -a all -d 'all parameters'

complete -c jexec -f
complete -c jexec -s l -d 'clean environment'
complete -c jexec -s d -x -d 'in this directory'
complete -c jexec -s e -x -d 'with this variable'
complete -c jexec -s u -x -a '(__jailng_users)' -d 'as this user of the host'
complete -c jexec -s U -x -a '(__jailng_users)' -d 'as this user of the jail'
complete -c jexec -n 'test (__jailng_words deuU) = 0' -a '(__jailng_running)' -d 'running jail'
complete -c jexec -n 'test (__jailng_words deuU) = 1' -a '(__fish_complete_command)'
complete -c jexec -n 'test (__jailng_words deuU) -gt 1' -F

complete -c ipnat -f
complete -c ipnat -s C -d 'remove all rules'
complete -c ipnat -s F -d 'forget all sessions'
complete -c ipnat -s d -d 'print what nft would be told'
complete -c ipnat -s f -r -F -d 'rules of this file'
complete -c ipnat -s h -d 'with -l: how often'
complete -c ipnat -s l -d 'list rules and sessions'
complete -c ipnat -s n -d 'only check'
complete -c ipnat -s p -d 'with -r: their sessions too'
complete -c ipnat -s R -d 'numbers for names'
complete -c ipnat -s r -d 'remove the rules of the file'
complete -c ipnat -s s -d 'statistics'
complete -c ipnat -s v -d 'print more'

function __jailng_rules
    set -l part (commandline -ct)
    set -l before (string replace -r '[^:]*$' '' -- $part)
    switch $part
        case '*:*:*:*'
            printf "$before%s\n" deny= log= throttle= sigterm= sigkill= sighup= sigstop= sigxcpu=
        case '*:*:*'
            printf "$before%s:\n" cputime datasize stacksize coredumpsize memoryuse memorylocked maxproc openfiles \
                vmemoryuse pseudoterminals swapuse nthr msgqqueued msgqsize nmsgq nsem nsemop nshm shmsize wallclock pcpu \
                readbps writebps readiops writeiops disk
        case 'jail:*' 'j:*'
            for name in (__jailng_running)
                echo $before$name:
            end
        case '*:*'
        case '*'
            printf '%s\n' jail: process:
    end
end
complete -c rctl -f -a '(__jailng_rules)'
complete -c rctl -s a -d 'add rules'
complete -c rctl -s h -d 'amounts in units'
complete -c rctl -s l -d 'rules for a process or jail'
complete -c rctl -s n -d 'numbers for names'
complete -c rctl -s r -d 'remove rules'
complete -c rctl -s u -d 'what is used'

function __jailng_verbs
    jailctl help 2>/dev/null | string match -rg '^ +jailctl (?!shim)(\S+) +(.*)' | while read -l verb
        read -l meaning
        printf '%s\t%s\n' $verb $meaning
    end
end

function __jailng_verb_options
    # Letters that stand together, as in [-aLr], are taken apart first.
    jailctl (commandline -opc)[2] --help 2>/dev/null | sed -E ':a; s/\[-(\w)(\w+)\]/-\1 [-\2]/; ta' \
        | string match -ra -- '(?<![\w-])(?:--[a-z-]+|-[A-Za-z0-9]\b)'
end

complete -c jailctl -n 'test (count (commandline -opc)) = 1' -f -a '(__jailng_verbs)'
complete -c jailctl -n 'test (count (commandline -opc)) -gt 1' -a '(__jailng_verb_options)'
complete -c jailctl -n 'test (count (commandline -opc)) -gt 1; and test (commandline -opc)[2] = cp' -a '(__jailng_running):' -d 'in that jail'
complete -c jailctl -n 'test (count (commandline -opc)) -gt 1; and test (commandline -opc)[2] = export' -a '(__jailng_running)' -d 'running jail'
complete -c jailctl -n 'test (count (commandline -opc)) -gt 1; and test (commandline -opc)[2] = sessions' -f -a '(__jailng_running)' -d 'running jail'
complete -c jailctl -n 'contains -- (commandline -opc)[2] console destroy drops info join list log logs packets restart signal stop top watch' -f -a '(__jailng_running)' -d 'running jail'
complete -c jailctl -n 'contains -- (commandline -opc)[2] info list logs restart start stop' -f -a '(__jailng_configured)' -d 'configured jail'
complete -c jailctl -n 'contains -- (commandline -opc)[-1] log' -f -a 'verify key' -d 'what to do'
complete -c jailctl -n 'contains -- (commandline -opc)[-1] egress rdr' -f -a list -d 'what to do'
complete -c jailctl -n 'contains -- (commandline -opc)[-1] rdr' -f -a 'add del clear' -d 'what to do'
complete -c jailctl -n 'test (count (commandline -opc)) -gt 2; and contains -- (commandline -opc)[2] egress rdr' -f -a '(__jailng_running)' -d 'running jail'
complete -c jailctl -n 'contains -- (commandline -opc)[-1] -j -J audit' -x -a '(__jailng_running)' -d 'running jail'
