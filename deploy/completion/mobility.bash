# bash completion of mobility, made by `mobility completion bash`.

_mobility_words() {
    (
        shopt -u failglob nullglob
        c=; n=0; v=; k=;
        o="-h --help --version";
        for w do
        if [ -n "$v" ]; then v=; continue; fi;
        case $w in
        -*) case $k in *" $w "*) v=$w;; esac;;
        *) if [ -n "$c" ]; then n=$((n + 1)); else c=$w;
        case $c in
        agent) o="-h --help --config --log-format --log-level --log-to"; k=" --config --log-format --log-level --log-to ";;
        exabgp) o="-h --help --config"; k=" --config ";;
        bridge) o="-h --help --config"; k=" --config ";;
        check) o="-h --help --config --json"; k=" --config ";;
        status) o="-h --help --config --json --running --dark --state --sort --watch"; k=" --config --state --sort ";;
        explain) o="-h --help --config --json"; k=" --config ";;
        plan) o="-h --help --config --json"; k=" --config ";;
        history) o="-h --help --config --json --since --what -n --lines"; k=" --config --since --what -n --lines ";;
        watch) o="-h --help --config --json"; k=" --config ";;
        top) o="-h --help --config --json --window --sort --every -n --times"; k=" --config --window --sort --every -n --times ";;
        events) o="-h --help --config --json -n --lines"; k=" --config -n --lines ";;
        drain) o="-h --help --config --json --until-boot --within"; k=" --config --within ";;
        undrain) o="-h --help --config --json --until-boot"; k=" --config ";;
        reload) o="-h --help --config --json"; k=" --config ";;
        release) o="-h --help --config --json"; k=" --config ";;
        handoff) o="-h --help --config --json --cancel"; k=" --config ";;
        expect) o="-h --help --config --json --within"; k=" --config --within ";;
        hooks) o="-h --help --config --json --all --adopt --dry-run --hook"; k=" --config --hook ";;
        doctor) o="-h --help --config --json --hook"; k=" --config --hook ";;
        completion) o="-h --help"; k=" ";;
        *) o=;; esac; fi;;
        esac; done;
        j=; if [ -n "$v" ]; then
        case "$c $v" in
        "agent --log-format") echo text json;;
        "agent --log-level") echo debug info warning error;;
        "agent --log-to") echo stderr syslog;;
        "status --state") echo problem no_address lost conflict frozen exhausted not_ready suppressed refused held_back no_session no_bridge waiting sending not_granted starting stopping failover drained announced stopped;;
        "status --sort") echo name since state penalty;;
        "top --sort") echo penalty flaps starts moves announced;;
        esac; else if [ -z "$c" ]; then
        echo agent exabgp bridge check status explain plan history watch top events drain undrain reload release handoff expect hooks doctor completion;
        fi; printf "%s " $o; case "$c:$n" in
        status:*) j=1;;
        explain:0) j=1;;
        plan:*) j=1;;
        history:0) j=1;;
        watch:*) j=1;;
        events:0) j=1;;
        drain:*) j=1;;
        undrain:*) j=1;;
        release:*) j=1;;
        handoff:*) j=1;;
        expect:0) j=1;;
        hooks:0) echo install remove status;;
        hooks:1) echo bastille iocage jail.conf;;
        hooks:*) j=1;;
        completion:0) echo bash zsh fish tcsh;;
        esac; fi;
        if [ -n "$j" ]; then {
        for w in /usr/local/etc/mobility/jails.d/*.toml; do w=${w##*/}; echo "${w%.toml}"; done;
        command -v jls >/dev/null 2>&1 && command jls name 2>/dev/null;
        } | LC_ALL=C grep -Ex "[A-Za-z0-9_][A-Za-z0-9_.-]*"; fi;
    )
}

_mobility() {
    local IFS=$' \t\n' current=${COMP_WORDS[COMP_CWORD]} previous= word words=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        # bash takes --option=value for three words
        [[ $word == "=" ]] || { words+=("$word") && previous=$word; }
    done
    [[ $current != "=" ]] || current=
    COMPREPLY=()
    case $previous in
    --config | --hook)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    *)
        # none of these words has a character that compgen would expand
        mapfile -t COMPREPLY < <(compgen -W "$(_mobility_words "${words[@]}")" -- "$current")
        ;;
    esac
}

complete -F _mobility mobility
