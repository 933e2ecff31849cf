# Exports the visits of one day from the Logs API to /export: one file for each part, complete under its final name.
# METRIKA_API_URL, COUNTER and FIELDS are required; DAY (YYYY-MM-DD) is yesterday unless set.
set -eu
folder=${EXPORT:-/export}
pause=${PAUSE:-30}
day=${DAY:-$(date -d "@$(($(date +%s) - 86400))" +%F)}
logs=$METRIKA_API_URL/management/v1/counter/$COUNTER
name=$folder/visits-$COUNTER-$day

[ ! -e "$name.complete" ] || { echo "$day is already exported"; exit 0; }

# call METHOD URL [OPTION...]: a request. The gate waits for the quota. A read is tried again, a change is not.
call() {
    method=$1 url=$2
    shift 2
    [ "$method" != GET ] || set -- --retry 5 "$@"
    curl -sS --fail-with-body -X "$method" "$@" "$url"
}
# number KEY: the first number under the key in the JSON on stdin; word KEY: the first string.
number() { sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" | head -n 1; }
word() { sed -n "s/.*\"$1\": *\"\([a-z_]*\)\".*/\1/p" | head -n 1; }

created=$(call POST "$logs/logrequests?date1=$day&date2=$day&source=visits&fields=$FIELDS")
id=$(echo "$created" | number request_id)
[ -n "$id" ] || { echo "no log request was created: $created" >&2; exit 1; }
echo "log request $id for $day"

# Whatever happens: a log request that is not used any more takes space in the account.
status=created
finish() {
    action=cancel
    [ "$status" != processed ] || action=clean
    call POST "$logs/logrequest/$id/$action" -o /dev/null || echo "log request $id is left; delete it in Metrica" >&2
}
trap finish EXIT
trap 'exit 143' TERM INT

while :; do
    state=$(call GET "$logs/logrequest/$id")
    status=$(echo "$state" | word status)
    case $status in
    processed) break ;;
    created) sleep "$pause" ;;
    *) echo "log request $id is '$status': $state" >&2; exit 1 ;;
    esac
done

for part in $(echo "$state" | grep -o '"part_number": *[0-9]*' | grep -o '[0-9]*$'); do
    call GET "$logs/logrequest/$id/part/$part/download" -o "$name.part$part.partial"
    mv "$name.part$part.partial" "$name.part$part.tsv"
    echo "part $part: $(wc -c <"$name.part$part.tsv") bytes"
done
: >"$name.complete"
