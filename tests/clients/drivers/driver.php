<?php
// What a client of PHP is told to do; see driver.py. `ask(method, target, type, body)` is the client; it throws what it has.
const COUNTER = '/management/v1/counter/101';
define('BASE', getenv('CLIENT_BASE'));
define('AUTHORIZATION', 'Authorization: OAuth ' . getenv('CLIENT_TOKEN'));

function number(string $text, string $name): string
{
    preg_match_all("/\"$name\":(\\d+)/", $text, $found);
    return implode(' ', $found[1]);
}

$actions = [
    'read' => fn() => number(ask('GET', '/management/v1/counters'), 'id'),
    'write' => fn() => number(
        ask('POST', COUNTER . '/goals', 'application/json', '{"goal": ' . file_get_contents('goal.json') . '}'), 'id'),
    'upload' => fn() => number(ask(
        'POST', COUNTER . '/offline_conversions/upload?client_id_type=CLIENT_ID', 'multipart/form-data; boundary=BOUNDARY',
        "--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"upload.csv\"\r\n\r\n"
            . file_get_contents('upload.csv') . "\r\n--BOUNDARY--\r\n"), 'id'),
    'logs' => function () {
        $query = '?date1=2026-11-01&date2=2026-11-02&fields=ym:s:visitID,ym:s:date&source=visits';
        $one = COUNTER . '/logrequest/' . number(ask('POST', COUNTER . '/logrequests' . $query), 'request_id');
        if (!str_contains(ask('GET', $one), '"status":"processed"')) throw new Exception('not processed');
        $table = ask('GET', "$one/part/0/download");
        ask('POST', "$one/clean");
        return substr_count($table, "\n") - 1;
    },
    'missing' => fn() => ask('GET', '/management/v1/nothing'),
];
foreach (explode(' ', getenv('CLIENT_ACTIONS')) as $name) {
    try {
        $given = $actions[$name]();
        echo "$name\tok\t$given\n";
    } catch (Throwable $error) {
        [$kind, $text] = [$error->getMessage(), ''];
        if (str_contains($kind, "\n")) [$kind, $text] = explode("\n", $kind, 2);
        echo "$name\terror\t$kind\t", preg_replace('/\s+/', ' ', $text), "\n";
    }
}
