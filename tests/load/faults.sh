#!/usr/bin/env bash
# Faults between gateways and their sources of revocations, as many rounds as one likes, from a seed; prints rounds,
# faults by kind, and what was lost. The same tests as in the suite, only longer:
#   tests/load/faults.sh [ROUNDS [SEED]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export FAULT_ROUNDS=${1:-200} FAULT_SEED=${2:-$RANDOM}
echo "seed $FAULT_SEED"
time cargo test --locked --test feeds -- faults:: --nocapture --test-threads 1
