import os
from urllib.parse import urlencode

import urllib3
from driver import BASE, TOKEN, drive_http

# urllib3 reads no variables: the program names the proxy and the certificate.
given = {"headers": {"Authorization": f"OAuth {TOKEN}"}, "timeout": 150}
proxy, ca = os.environ.get("HTTPS_PROXY"), os.environ.get("CA")
if ca:
    given["ca_certs"] = ca
pool = urllib3.ProxyManager(proxy, **given) if proxy else urllib3.PoolManager(**given)


def ask(method, path, query=None, document=None, file=None):
    fields = query
    url = BASE + path
    if file:
        url += "?" + urlencode(query)
        fields = {"file": ("upload.csv", open(file).read(), "text/csv")}
    elif query and method == "POST":
        url, fields = url + "?" + urlencode(query), None
    response = pool.request(method, url, fields=fields, json=document)
    # It has no exception for a status.
    if response.status >= 400:
        raise type(f"status {response.status}", (Exception,), {})(response.data.decode())
    return response.data.decode()


drive_http(ask)
