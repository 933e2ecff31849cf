import requests
from driver import BASE, TOKEN, drive_http

session = requests.Session()
session.headers["Authorization"] = f"OAuth {TOKEN}"


def ask(method, path, query=None, document=None, file=None):
    files = {"file": open(file, "rb")} if file else None
    response = session.request(method, BASE + path, params=query, json=document, files=files, timeout=150)
    response.raise_for_status()
    return response.text


drive_http(ask)
