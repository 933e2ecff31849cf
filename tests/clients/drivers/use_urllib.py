import json
import urllib.request
from urllib.parse import urlencode

from driver import BASE, TOKEN, drive_http


def ask(method, path, query=None, document=None, file=None):
    fields, body = {"Authorization": f"OAuth {TOKEN}"}, None
    if document is not None:
        fields["Content-Type"], body = "application/json", json.dumps(document).encode()
    elif file:
        # urllib makes no forms.
        fields["Content-Type"] = "multipart/form-data; boundary=BOUNDARY"
        head = '--BOUNDARY\r\nContent-Disposition: form-data; name="file"; filename="upload.csv"\r\n\r\n'
        body = f"{head}{open(file).read()}\r\n--BOUNDARY--\r\n".encode()
    url = BASE + path + (f"?{urlencode(query)}" if query else "")
    request = urllib.request.Request(url, body, fields, method=method)
    with urllib.request.urlopen(request, timeout=150) as response:
        return response.read().decode()


drive_http(ask)
