#compdef audiohook-collector
_audiohook_collector() {
  local -a commands everywhere
  local state line
  commands=(
    'demo:run the collector against a simulated Genesys Cloud, with no account'
    'simulate:run only the simulated Genesys Cloud, to test a collector'
    'check:try everything that the collector needs, and report problems and fixes'
    'audit:compare the collected files with Genesys Cloud’s own counts'
    'events:print records from the output file and its backups'
    'health:print the health of the running collector'
    'replay:send the dead letters to the cluster again'
    'template:print the index template'
    'help:print this help, or the help of a command'
    'version:print the version'
  )
  everywhere=(
    '--env-file[read settings from this file instead of ./.env; the environment takes precedence]:file:_files'
    '--help[print this help (also -h)]'
    '--version[print the version (also -V)]'
  )
  _arguments -C $everywhere '1:command:->command' '*::option:->option'
  case $state in
    command) _describe command commands ;;
    option)
      case $line[1] in
        demo) _arguments $everywhere '--dir[keep the files in this folder; default; a temporary one]:folder:_files -/' '--for[stop after this time; default; run until stopped]:seconds:' ;;
        simulate) _arguments $everywhere '--listen[the address to listen on; default 127.0.0.1;8078; port 0; any free port]:host port:' '--seed[issue the same events in each run with this seed]:n:' '--rate[average number of events per minute; default 30, maximum 60000]:n:' ;;
        check) _arguments $everywhere '--json[print one JSON document instead of lines]' '--verbose[also examine undocumented behaviour of this organization’s API]' ;;
        audit) _arguments $everywhere '--from[the beginning, such as 2026-11-23T10;00;00Z; default; 24 hours before the end]:time:' '--to[the end; default and maximum; the time up to which the history is final]:time:' '--repair[append missing events to the file; refused while a collector is running on it]' '--all[list all missing and extra events, not only the first 20]' '--json[print one JSON document instead of lines]' ;;
        events) _arguments $everywhere '--since[only events from this time on; RFC 3339, or an age such as 30m, 2h or 3d]:t:' '--until[only events before this time or age]:t:' '--event-id[only events with this code, such as AUDIOHOOK-0003]:id:' '--entity-id[only events of this integration]:id:' '--conversation-id[only events of this conversation]:id:' '--limit[only the newest N events]:n:' '--follow[continue with new records, across rotations, until stopped]' '--format[json; the unchanged lines; table; a table]:word:(json table)' ;;
        health) _arguments $everywhere '--plugin[print one line and exit as a plugin for Nagios, Icinga, Checkmk or Zabbix]' ;;
        template) _arguments $everywhere '--data-stream[print the template for a data stream]' '--lifecycle[print the lifecycle policy of ELASTIC_RETENTION instead]' ;;
        help) _arguments $everywhere '1:command:(demo simulate check audit events health replay template help version)' ;;
        *) _arguments $everywhere ;;
      esac
      ;;
  esac
}
_audiohook_collector "$@"
