#!/usr/bin/env bash
# Runs a command that may be silent for long, with a line every ten seconds:
#     patiently.sh LABEL COMMAND [ARGUMENT ...]
# Ends with the command's exit status; when interrupted, the command is too.
set -uo pipefail
label=$1
shift

"$@" &
pid=$!
trap 'kill "$pid" 2>/dev/null' INT TERM
seconds=0
while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    [ $((seconds % 10)) != 0 ] || printf '%s: still working, %s s\n' "$label" "$seconds"
done
wait "$pid"
