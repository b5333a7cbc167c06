#compdef audiohook-collector
_audiohook_collector() {
  local -a commands everywhere
  local state line
  commands=(
    'demo:run the collector against a simulated Genesys Cloud'
    'simulate:run only the simulated Genesys Cloud'
    'check:try everything that a start needs'
    'audit:compare the files with the counts of Genesys Cloud'
    'health:ask the running collector how it is'
    'replay:send the dead letters to the cluster again'
    'template:print the index template'
  )
  everywhere=(
    '--env-file[read settings from this file]:settings file:_files'
    '(-h --help)'{-h,--help}'[print help]'
    '(-V --version)'{-V,--version}'[print the version]'
  )
  _arguments -C $everywhere '1:command:->command' '*::option:->option'
  case $state in
    command) _describe command commands ;;
    option)
      case $line[1] in
        demo) _arguments $everywhere '--dir[keep its files here]:folder:_files -/' '--for[stop after]:seconds:' ;;
        simulate) _arguments $everywhere '--listen[where to listen]:host and port:' '--seed[the same events again]:number:' '--rate[events a minute]:number:' ;;
        check) _arguments $everywhere '--json[print one JSON document]' ;;
        audit) _arguments $everywhere '--from[the beginning]:instant:' '--to[the end]:instant:' '--repair[append what is missing]' '--json[print one JSON document]' ;;
        *) _arguments $everywhere ;;
      esac
      ;;
  esac
}
_audiohook_collector "$@"
