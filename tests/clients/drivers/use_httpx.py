import httpx
from driver import BASE, TOKEN, drive_http

fields = {"Authorization": f"OAuth {TOKEN}"}
if BASE.startswith("unix:"):
    transport = httpx.HTTPTransport(uds=BASE.removeprefix("unix:"))
    client = httpx.Client(transport=transport, base_url="http://localhost", headers=fields, timeout=150)
elif BASE.startswith("h2c:"):
    client = httpx.Client(http1=False, http2=True, base_url=f"http://{BASE.removeprefix('h2c:')}", headers=fields, timeout=150)
else:
    client = httpx.Client(base_url=BASE, headers=fields, timeout=150)


def ask(method, path, query=None, document=None, file=None):
    files = {"file": open(file, "rb")} if file else None
    response = client.request(method, path, params=query, json=document, files=files)
    response.raise_for_status()
    return response.text


drive_http(ask)
