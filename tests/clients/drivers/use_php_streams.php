<?php
// file_get_contents. PHP's streams read no variable for proxies.
function ask(string $method, string $target, ?string $type = null, string $body = ''): string
{
    $fields = [AUTHORIZATION];
    if ($type !== null) $fields[] = "Content-Type: $type";
    $http = ['method' => $method, 'header' => $fields, 'content' => $body, 'timeout' => 150];
    if (getenv('PROXY')) $http['proxy'] = 'tcp://' . getenv('PROXY');
    $tls = getenv('CA') ? ['cafile' => getenv('CA')] : [];
    $text = @file_get_contents(BASE . $target, false, stream_context_create(['http' => $http, 'ssl' => $tls]));
    if ($text === false) throw new Exception("false and a warning\n" . (error_get_last()['message'] ?? ''));
    return $text;
}

require 'driver.php';
