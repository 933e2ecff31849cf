# What a command-line client is told to do; see driver.py. `ask METHOD PATH [QUERY [FORM]]` is the client: it prints the body and
# has a status of its own. FORM is goal.json or upload.csv.
counter=/management/v1/counter/101
period='date1=2026-11-01&date2=2026-11-02&fields=ym:s:visitID,ym:s:date&source=visits'
read_() { ask GET /management/v1/counters >body && grep -o '"id":[0-9]*' body | tr '\n' ' '; }
write_() { ask POST $counter/goals '' goal.json >body && grep -o '"id":[0-9]*' body | tail -n 1; }
upload_() { ask POST $counter/offline_conversions/upload client_id_type=CLIENT_ID upload.csv >body && grep -o '"id":[0-9]*' body; }
logs_() {
    ask POST $counter/logrequests "$period" >body && request=$(grep -o '"request_id":[0-9]*' body | cut -d: -f2) &&
        ask GET $counter/logrequest/$request >body && grep -q '"status":"processed"' body &&
        ask GET $counter/logrequest/$request/part/0/download >part && ask POST $counter/logrequest/$request/clean >body &&
        echo $(($(wc -l <part) - 1))
}
missing_() { ask GET /management/v1/nothing; }
for action in $CLIENT_ACTIONS; do
    if given=$("${action}_" 2>error); then
        printf '%s\tok\t%s\n' "$action" "$given"
    else
        printf '%s\terror\texit status %s\t%s %s\n' "$action" $? "$(tr '\n' ' ' <error)" "$(head -c 200 body)"
    fi
done
