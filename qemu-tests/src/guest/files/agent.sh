#!/bin/sh
# Runs what the test sends over the second serial line: a line with a number of bytes and as many bytes of script in, one line
# "STATUS BASE64-OF-OUTPUT" out.
work=/run/agent
mkdir -p "$work"
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
printf '@AGENT\n' >&3
while read -r bytes <&3; do
    head -c "$bytes" <&3 >"$work/script"
    (. "$work/script") </dev/null >"$work/out" 2>&1 3>&-
    printf '%d %s\n' "$?" "$(base64 -w 0 "$work/out")" >&3
done
