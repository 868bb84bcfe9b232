#!/usr/bin/env bash
# Three gateways behind HAProxy (TCP) with one Valkey, replaced one by one under constant traffic by TLS, while tokens are
# revoked; prints what came of the requests and of the revocations. The same test as in the suite, only longer:
#   tests/load/rolling.sh [ROLLS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export OPERATIONS_ROLLS=${1:-40}
time cargo test --locked --test operations -- rolling::no_ --nocapture --test-threads 1
