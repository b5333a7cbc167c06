# bash completion for audiohook-collector
_audiohook_collector() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command='' each options
    COMPREPLY=()
    for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $each in demo | simulate | check | audit | events | health | replay | template | help | version) command=${command:-$each} ;; esac
    done
    case $before in
        --env-file)
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        --dir)
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
            ;;
        --format)
            mapfile -t COMPREPLY < <(compgen -W 'json table' -- "$word")
            return
            ;;
        --conversation-id | --entity-id | --event-id | --for | --from | --limit | --listen | --rate | --seed | --since | --to | --until) return ;;
    esac
    options='--env-file --help --version'
    case $command in
        '') options="demo simulate check audit events health replay template help version $options" ;;
        demo) options="--dir --for $options" ;;
        simulate) options="--listen --seed --rate $options" ;;
        check) options="--json --verbose $options" ;;
        audit) options="--from --to --repair --all --json $options" ;;
        events) options="--since --until --event-id --entity-id --conversation-id --limit --follow --format $options" ;;
        health) options="--plugin $options" ;;
        template) options="--data-stream --lifecycle $options" ;;
        help) options="demo simulate check audit events health replay template help version $options" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}
complete -o filenames -F _audiohook_collector audiohook-collector
