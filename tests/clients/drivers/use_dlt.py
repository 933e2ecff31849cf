from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from driver import BASE, TOKEN, drive_http

client = RESTClient(base_url=BASE, auth=BearerTokenAuth(TOKEN))


def ask(method, path, query=None, document=None, file=None):
    files = {"file": open(file, "rb")} if file else None
    response = client.session.request(method, BASE + path, params=query, json=document, files=files, auth=client.auth)
    response.raise_for_status()
    return response.text


drive_http(ask)
