#!/usr/bin/env bash
# Runs the demo and lets a real Prometheus scrape it, with the alerts loaded: the metrics are valid, arrive, and no alert
# fires on a healthy collector; every query of the Grafana dashboard returns data. Needs Debian's packages prometheus and curl.
#
#   tests/prometheus/scrape.sh PROGRAM
set -euo pipefail
program=$1
here=$(cd "$(dirname "$0")" && pwd)
rules=$(cd "$here/../../contrib/monitoring" && pwd)/alerts.yml
work=$(mktemp -d)
beside=()
cleanup() {
    if [ ${#beside[@]} -gt 0 ]; then
        kill "${beside[@]}" 2>/dev/null || true
        wait "${beside[@]}" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

promtool check rules "$rules"
promtool test rules "$here"/*_test.yml

"$program" demo --dir "$work/demo" --for 120 >"$work/demo.log" 2>&1 &
beside+=($!)
# The demo names its port: the usual one may be somebody else's.
address=
for _ in $(seq 100); do
    address=$(grep -oE 'http://[^ /]+:[0-9]+/metrics' "$work/demo.log" | head -n 1 || true)
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || { cat "$work/demo.log"; echo 'the demo names no address' >&2; exit 1; }
target=${address#http://}
target=${target%/metrics}

# A port of its own for Prometheus: taken free a moment ago, tried again if somebody was quicker.
port=$((20000 + $$ % 10000))
cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ['$rules']
scrape_configs:
  - job_name: audiohook-collector
    static_configs: [{targets: ['$target']}]
YAML
promtool check config "$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
    --web.listen-address="127.0.0.1:$port" 2>"$work/prometheus.log" &
beside+=($!)

# Whether a query has a result.
holds() { curl -sfG -m 5 "http://127.0.0.1:$port/api/v1/query" --data-urlencode "query=$1" | grep -q '"value"'; }
name=audiohook_collector_events
adds_up="sum(${name}_received_total) == sum(${name}_written_total) + sum(${name}_duplicate_total)"
adds_up+=" + sum(${name}_filtered_total) + sum(${name}_unreadable_total)"
begin=$SECONDS
for query in 'up{job="audiohook-collector"} == 1' 'audiohook_collector_events_written_total > 0' \
    'count(audiohook_collector_health_reason) == 16' \
    'sum(audiohook_collector_audiohook_events_total) > 0' 'audiohook_collector_definitions_confirmed == 1' 'sum(audiohook_collector_health_reason) == 0' \
    'audiohook_collector_socket_connected == 1' 'process_resident_memory_bytes > 0' \
    "$adds_up"; do
    until holds "$query"; do
        if [ $((SECONDS - begin)) -ge 60 ]; then
            cat "$work"/*.log
            echo "Prometheus does not see: $query" >&2
            exit 1
        fi
        sleep 0.5
    done
    echo "holds: $query"
done
"$here/dashboard-queries.pl" "$here/../../contrib/monitoring/grafana-dashboard.json" >"$work/queries"
while read -r query; do
    until holds "$query"; do
        [ $((SECONDS - begin)) -lt 60 ] || { echo "the dashboard shows nothing for: $query" >&2; exit 1; }
        sleep 0.5
    done
    echo "returns data: $query"
done <"$work/queries"
if holds 'ALERTS{alertstate="firing", alertname=~"AudioHookCollector.*"}'; then
    echo 'an alert fires on a healthy collector' >&2
    exit 1
fi
curl -sf -m 5 "$address" | promtool check metrics
echo "scraped after $((SECONDS - begin)) s"
