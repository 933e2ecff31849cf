import io
import json
import os
from urllib.parse import urlencode

import pycurl
from driver import BASE, TOKEN, drive_http

curl = pycurl.Curl()


def ask(method, path, query=None, document=None, file=None):
    base = BASE
    curl.reset()
    if BASE.startswith("unix:"):
        curl.setopt(pycurl.UNIX_SOCKET_PATH, BASE.removeprefix("unix:"))
        base = "http://localhost"
    elif BASE.startswith("h2c:"):
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE)
        base = f"http://{BASE.removeprefix('h2c:')}"
    # libcurl reads the variables of proxies, and none for certificates.
    if "CA" in os.environ:
        curl.setopt(pycurl.CAINFO, os.environ["CA"])
    curl.setopt(pycurl.URL, base + path + (f"?{urlencode(query)}" if query else ""))
    fields = [f"Authorization: OAuth {TOKEN}"]
    if document is not None:
        fields.append("Content-Type: application/json")
        curl.setopt(pycurl.POSTFIELDS, json.dumps(document))
    elif file:
        curl.setopt(pycurl.HTTPPOST, [("file", (pycurl.FORM_FILE, file, pycurl.FORM_CONTENTTYPE, "text/csv"))])
    elif method == "POST":
        curl.setopt(pycurl.POSTFIELDS, "")
        fields.append("Content-Type:")
    curl.setopt(pycurl.HTTPHEADER, fields)
    curl.setopt(pycurl.FAILONERROR, True)
    curl.setopt(pycurl.TIMEOUT, 150)
    body = io.BytesIO()
    curl.setopt(pycurl.WRITEDATA, body)
    curl.perform()
    return body.getvalue().decode()


drive_http(ask)
