#compdef audiohook-collector
_audiohook_collector() {
  local -a commands everywhere
  local state line
  commands=(
    'demo:run the collector against a simulated Genesys Cloud, with no account'
    'simulate:run only the simulated Genesys Cloud, to point a collector at'
    'check:try everything that a start needs, and say what is wrong and what to do'
    'audit:compare the collected files with Genesys Cloud’s own counts'
    'events:print records from the output file and its backups'
    'health:ask the running collector for its health'
    'replay:send the dead letters to the cluster again'
    'template:print the index template'
    'help:print this help, or that of a command'
    'version:print the version'
  )
  everywhere=(
    '--env-file[read settings from this file instead of ./.env; the environment wins over it]:file:_files'
    '--help[print this help (also -h)]'
    '--version[print the version (also -V)]'
  )
  _arguments -C $everywhere '1:command:->command' '*::option:->option'
  case $state in
    command) _describe command commands ;;
    option)
      case $line[1] in
        demo) _arguments $everywhere '--dir[keep its files in this folder; default a temporary one]:folder:_files -/' '--for[stop after this time; default; run until stopped]:seconds:' ;;
        simulate) _arguments $everywhere '--listen[where to listen; default 127.0.0.1;8078, port 0 for any free one]:host port:' '--seed[issue the same events in each run]:n:' '--rate[events per minute on average; default 30, at most 60000]:n:' ;;
        check) _arguments $everywhere '--json[print one JSON document instead of lines]' '--verbose[also find out how this organization’s API behaves]' ;;
        audit) _arguments $everywhere '--from[the beginning, such as 2026-11-23T10;00;00Z; default 24 hours before the end]:time:' '--to[the end; default and latest; the time up to which the history is settled]:time:' '--repair[append what is missing; refused while a collector runs on the file]' '--all[list all missing and extra events, not only the first 20]' '--json[print one JSON document instead of lines]' ;;
        events) _arguments $everywhere '--since[from this instant on (RFC 3339), or from so long ago; 30m, 2h, 3d]:t:' '--until[up to this instant, or up to so long ago]:t:' '--event-id[only of this code, such as AUDIOHOOK-0003]:id:' '--entity-id[only of this integration]:id:' '--conversation-id[only of this conversation]:id:' '--limit[only the newest N]:n:' '--follow[go on with new records, across rotations, until stopped]' '--format[lines as they are, or a table]:word:(json table)' ;;
        health) _arguments $everywhere '--plugin[print one line and exit as a plugin for Nagios, Icinga, Checkmk or Zabbix]' ;;
        template) _arguments $everywhere '--data-stream[print the template of a data stream]' '--lifecycle[print the lifecycle policy of ELASTIC_RETENTION instead]' ;;
        help) _arguments $everywhere '1:command:(demo simulate check audit events health replay template help version)' ;;
        *) _arguments $everywhere ;;
      esac
      ;;
  esac
}
_audiohook_collector "$@"
