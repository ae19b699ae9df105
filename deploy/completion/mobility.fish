# fish completion of mobility, made by `mobility completion fish`.

function __mobility_jails
    begin
        for file in /usr/local/etc/mobility/jails.d/*.toml
            string replace -r '^.*/(.*)\.toml$' '$1' -- $file
        end
        command -sq jls; and command jls name 2>/dev/null
    end | string match -r '^[A-Za-z0-9_][A-Za-z0-9_.-]*$'
end

# COMMAND [PLACE [OPTION ...]]: whether that is the command of the line ('': it has none yet), and so many words stand
# behind it (-PLACE: or more), not counting options, nor what follows those that are named
function __mobility_at
    set -l words (commandline -opc)[2..-1]
    set -l command ''
    set -l count 0
    set -l value 0
    for word in $words
        if test $value = 1
            set value 0
        else if string match -q -- '-*' $word
            contains -- $word $argv[3..-1]; and set value 1
        else if test -z "$command"
            set command $word
        else
            set count (math $count + 1)
        end
    end
    test "$command" = "$argv[1]"; or return 1
    set -q argv[2]; or return 0
    if string match -q -- '-*' $argv[2]
        test $count -ge (string sub -s 2 -- $argv[2])
    else
        test $count -eq $argv[2]
    end
end

complete -c mobility -f
complete -c mobility -n "__mobility_at ''" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at ''" -l version -d 'show program\'s version number and exit'
complete -c mobility -n "__mobility_at ''" -a agent -d 'Run the agent in the foreground (rc.d does it)'
complete -c mobility -n "__mobility_at ''" -a exabgp -d 'Write ExaBGP\'s configuration from ours and become ExaBGP (rc.d does it)'
complete -c mobility -n "__mobility_at ''" -a bridge -d 'Become the bridge between ExaBGP and the agent (ExaBGP does it)'
complete -c mobility -n "__mobility_at ''" -a check -d 'Judge the configuration and every jail\'s files; touch nothing'
complete -c mobility -n "__mobility_at ''" -a status -d 'Say of each jail: running, wired, ready, announced, since when, and if not, why'
complete -c mobility -n "__mobility_at ''" -a explain -d 'Tell one jail\'s whole story, and why it is as it is in one sentence'
complete -c mobility -n "__mobility_at ''" -a plan -d 'Print the exact commands that would be run now, and run none of them'
complete -c mobility -n "__mobility_at ''" -a history -d 'Print what happened, whether the agent runs or not'
complete -c mobility -n "__mobility_at ''" -a watch -d 'Print what happens as it happens, one line each, until Ctrl-C'
complete -c mobility -n "__mobility_at ''" -a top -d 'Show the busiest jails: flaps, starts, moves, announcements'
complete -c mobility -n "__mobility_at ''" -a events -d 'Print what happened, as the agent tells it'
complete -c mobility -n "__mobility_at ''" -a drain -d 'Withdraw this host\'s jails (or those named) and keep them withdrawn; they go on running'
complete -c mobility -n "__mobility_at ''" -a undrain -d 'Announce again what was drained'
complete -c mobility -n "__mobility_at ''" -a reload -d 'Take up peers, allowed prefixes and groups that changed in mobility.toml'
complete -c mobility -n "__mobility_at ''" -a release -d 'Announce jails again that are kept back: they flapped, moved too often, or another host has claimed them'
complete -c mobility -n "__mobility_at ''" -a handoff -d 'Say in the fabric that jails are about to be stopped here and started elsewhere (mobility expect, there)'
complete -c mobility -n "__mobility_at ''" -a expect -d 'Wait until the host that hands a jail over has stopped it: the moment to start it here'
complete -c mobility -n "__mobility_at ''" -a hooks -d 'Put our hooks into jails\' files (install), take them out (remove), or tell where they are (status)'
complete -c mobility -n "__mobility_at ''" -a doctor -d 'Check every prerequisite; say what is wrong and the command that mends it'
complete -c mobility -n "__mobility_at ''" -a completion -d 'Print what makes a shell complete these commands and their options'
complete -c mobility -n "__mobility_at agent" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at agent" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at agent" -l log-format -x -a 'text json' -d 'how a line is written'
complete -c mobility -n "__mobility_at agent" -l log-level -x -a 'debug info warning error' -d 'what is logged: this, and what is graver'
complete -c mobility -n "__mobility_at agent" -l log-to -x -a 'stderr syslog' -d 'where to (rc.d: syslog)'
complete -c mobility -n "__mobility_at exabgp" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at exabgp" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at bridge" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at bridge" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at check" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at check" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at check" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at status" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at status" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at status" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at status" -l running -d 'only jails that run'
complete -c mobility -n "__mobility_at status" -l dark -d 'only jails that run, should be announced, and are not'
complete -c mobility -n "__mobility_at status" -l state -x -a 'problem no_address lost conflict frozen exhausted not_ready suppressed refused held_back no_session no_bridge waiting sending not_granted starting stopping failover drained announced stopped' -d 'only jails that are at that; may be repeated: problem, no_address, lost, conflict, frozen, exhausted, not_ready, suppressed, refused, held_back, no_session, no_bridge, waiting, sending, not_granted, starting, stopping, failover, drained, announced, stopped'
complete -c mobility -n "__mobility_at status" -l sort -x -a 'name since state penalty' -d 'sort'
complete -c mobility -n "__mobility_at status" -l watch -d 'show it again every so many seconds'
complete -c mobility -n '__mobility_at status -0 --config --state --sort' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at explain" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at explain" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at explain" -l json -d 'answer in JSON'
complete -c mobility -n '__mobility_at explain 0 --config' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at plan" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at plan" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at plan" -l json -d 'answer in JSON'
complete -c mobility -n '__mobility_at plan -0 --config' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at history" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at history" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at history" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at history" -l since -x -d 'from then on: how long ago (90s, 15m, 2h, 7d), or a time in UTC (2026-11-21)'
complete -c mobility -n "__mobility_at history" -l what -x -d 'only what is called so: announced, withdrawn, flapped, ...'
complete -c mobility -n "__mobility_at history" -s n -l lines -x -d 'the newest N'
complete -c mobility -n '__mobility_at history 0 --config --since --what -n --lines' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at watch" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at watch" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at watch" -l json -d 'answer in JSON'
complete -c mobility -n '__mobility_at watch -0 --config' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at top" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at top" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at top" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at top" -l window -x -d 'how far to look back'
complete -c mobility -n "__mobility_at top" -l sort -x -a 'penalty flaps starts moves announced' -d 'sort'
complete -c mobility -n "__mobility_at top" -l every -x -d 'seconds'
complete -c mobility -n "__mobility_at top" -s n -l times -x -d 'show it so often, 1: once'
complete -c mobility -n "__mobility_at events" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at events" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at events" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at events" -s n -l lines -x -d 'the newest N'
complete -c mobility -n '__mobility_at events 0 --config -n --lines' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at drain" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at drain" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at drain" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at drain" -l until-boot -d 'for a shutdown: the whole host, until the next boot, in a bounded time'
complete -c mobility -n "__mobility_at drain" -l within -x -d 'how long that may take'
complete -c mobility -n '__mobility_at drain -0 --config --within' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at undrain" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at undrain" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at undrain" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at undrain" -l until-boot -d 'end only what drain --until-boot began'
complete -c mobility -n '__mobility_at undrain -0 --config' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at reload" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at reload" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at reload" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at release" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at release" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at release" -l json -d 'answer in JSON'
complete -c mobility -n '__mobility_at release -0 --config' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at handoff" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at handoff" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at handoff" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at handoff" -l cancel -d 'they stay after all'
complete -c mobility -n '__mobility_at handoff -0 --config' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at expect" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at expect" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at expect" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at expect" -l within -x -d 'how long to wait'
complete -c mobility -n '__mobility_at expect 0 --config --within' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at hooks" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at hooks" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at hooks" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at hooks" -l all -d 'every jail that the manager has; for status the default'
complete -c mobility -n "__mobility_at hooks" -l adopt -d 'leave the manager\'s own interface in place, and wire it once the jail has started'
complete -c mobility -n "__mobility_at hooks" -l dry-run -d 'show what would be changed, and change nothing'
complete -c mobility -n "__mobility_at hooks" -l hook -r -F -d 'the hook program'
complete -c mobility -n '__mobility_at hooks 0 --config --hook' -a 'install remove status'
complete -c mobility -n '__mobility_at hooks 1 --config --hook' -a 'bastille iocage jail.conf'
complete -c mobility -n '__mobility_at hooks -2 --config --hook' -a '(__mobility_jails)'
complete -c mobility -n "__mobility_at doctor" -s h -l help -d 'show this help message and exit'
complete -c mobility -n "__mobility_at doctor" -l config -r -F -d 'file'
complete -c mobility -n "__mobility_at doctor" -l json -d 'answer in JSON'
complete -c mobility -n "__mobility_at doctor" -l hook -r -F -d 'the hook that jails call'
complete -c mobility -n "__mobility_at completion" -s h -l help -d 'show this help message and exit'
complete -c mobility -n '__mobility_at completion 0' -a 'bash zsh fish tcsh'
