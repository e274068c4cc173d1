#!/bin/sh
# Runs what the test sends over the second serial line: one base64 line in, one line "STATUS BASE64-OF-OUTPUT" out.
work=/run/agent
mkdir -p "$work"
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
printf '@AGENT\n' >&3
while IFS= read -r line <&3; do
    printf %s "$line" | base64 -d >"$work/script"
    sh "$work/script" </dev/null >"$work/out" 2>&1 3>&-
    printf '%d %s\n' "$?" "$(base64 -w 0 "$work/out")" >&3
done
