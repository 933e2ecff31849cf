<?php
// The extension curl.
function ask(string $method, string $target, ?string $type = null, string $body = ''): string
{
    $base = BASE;
    $options = [CURLOPT_RETURNTRANSFER => true, CURLOPT_FAILONERROR => true, CURLOPT_TIMEOUT => 150, CURLOPT_CUSTOMREQUEST => $method];
    if (str_starts_with($base, 'unix:')) {
        $options[CURLOPT_UNIX_SOCKET_PATH] = substr($base, 5);
        $base = 'http://localhost';
    } elseif (str_starts_with($base, 'h2c:')) {
        $options[CURLOPT_HTTP_VERSION] = CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
        $base = 'http://' . substr($base, 4);
    }
    $fields = [AUTHORIZATION];
    if ($type !== null) {
        $fields[] = "Content-Type: $type";
        $options[CURLOPT_POSTFIELDS] = $body;
    }
    $curl = curl_init($base . $target);
    curl_setopt_array($curl, $options + [CURLOPT_HTTPHEADER => $fields]);
    $text = curl_exec($curl);
    if ($text === false) throw new Exception('curl_errno ' . curl_errno($curl) . "\n" . curl_error($curl));
    return $text;
}

require 'driver.php';
