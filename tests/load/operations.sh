#!/usr/bin/env bash
# Reloads and restarts under constant traffic by TLS (HTTP/1.1 and HTTP/2, kept and new connections), by the hundred;
# prints what came of the requests. The same tests as in the suite, only longer:
#   tests/load/operations.sh [RELOADS [RESTARTS]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export OPERATIONS_RELOADS=${1:-100} OPERATIONS_RESTARTS=${2:-20}
time cargo test --locked --test operations -- load::no_ --nocapture --test-threads 1
