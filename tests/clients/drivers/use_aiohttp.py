import asyncio

import aiohttp
from driver import BASE, TOKEN, drive_http

loop = asyncio.new_event_loop()


async def make():
    # trust_env is needed for the variables of a proxy.
    given = {"headers": {"Authorization": f"OAuth {TOKEN}"}, "raise_for_status": True, "trust_env": True}
    if BASE.startswith("unix:"):
        connector = aiohttp.UnixConnector(path=BASE.removeprefix("unix:"))
        return aiohttp.ClientSession("http://localhost", connector=connector, **given)
    return aiohttp.ClientSession(BASE, **given)


session = loop.run_until_complete(make())


async def send(method, path, query, document, file):
    form = aiohttp.FormData({"file": open(file, "rb")}) if file else None
    async with session.request(method, path, params=query, json=document, data=form) as response:
        return await response.text()


def ask(method, path, query=None, document=None, file=None):
    return loop.run_until_complete(send(method, path, query, document, file))


drive_http(ask)
loop.run_until_complete(session.close())
