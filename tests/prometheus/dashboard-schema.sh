#!/usr/bin/env bash
# Checks the Grafana dashboard against the types that Grafana publishes. Needs npm, and its registry.
set -euo pipefail
dashboard=$(cd "$(dirname "$0")/../../contrib/monitoring" && pwd)/grafana-dashboard.json
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --no-audit --no-fund --ignore-scripts --legacy-peer-deps --silent @grafana/schema@11.4.0 typescript@5.6.3
{
    cat <<'TYPES'
import type { Dashboard } from '@grafana/schema';
// JSON has the values of Grafana's enumerations, not their names.
type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
TYPES
    printf 'export const dashboard: Plain<Dashboard> = '
    cat "$dashboard"
} >dashboard.ts
npx tsc --noEmit --strict --skipLibCheck --moduleResolution node --target es2020 --module esnext dashboard.ts
echo "$dashboard: as @grafana/schema has it"
