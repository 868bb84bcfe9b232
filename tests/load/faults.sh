#!/usr/bin/env bash
# Faults between gateways and their sources of revocations, as many rounds as one likes, from a seed; prints rounds,
# faults by kind, and what was lost. The same tests as in the suite, only longer:
#   tests/load/faults.sh [ROUNDS [SEED]]
# That it can fail is shown by planting what it must find, in the third round, behind the schedule's back: a revocation
# that counts as acknowledged and is never written (FAULT_PLANT=loss), and one that is lifted for a moment and put in
# force again (FAULT_PLANT=relapse). Each of the three sources must then fail, with nothing but the planted:
#   tests/load/faults.sh --can-fail
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

run() {
    cargo test --locked --test feeds -- faults:: --nocapture --test-threads 1
}

if [[ ${1:-} == --can-fail ]]; then
    export FAULT_ROUNDS=4 FAULT_SEED=1 FAULT_PLANT
    for FAULT_PLANT in loss relapse; do
        output=$(run 2>&1) && { echo "$output"; echo "a planted $FAULT_PLANT was not found" >&2; exit 1; }
        found=$(grep -Ec ': (3 lost, 0|0 lost, [1-9][0-9]*) relapsed' <<<"$output" || true)
        echo "$FAULT_PLANT: found by $found of 3"
        [[ $found -eq 3 ]] || { echo "$output"; exit 1; }
    done
    exit
fi

export FAULT_ROUNDS=${1:-200} FAULT_SEED=${2:-$RANDOM}
echo "seed $FAULT_SEED"
time run
