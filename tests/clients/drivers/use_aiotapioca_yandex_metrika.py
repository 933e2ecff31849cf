import asyncio

import aiohttp
from aiotapioca_yandex_metrika import YandexMetrikaLogsAPI, YandexMetrikaManagementAPI
from aiotapioca_yandex_metrika import aiotapioca_yandex_metrika as adapters
from driver import BASE, COUNTER, FIELDS, GOAL, HARD_CODED, PERIOD, TOKEN, drive

if BASE != HARD_CODED:
    adapters.YandexMetrikaClientAdapterAbstract.api_root = f"{BASE}/"


def session():
    # The client's own session reads no variables.
    return aiohttp.ClientSession(trust_env=True)


async def asked(make):
    async with YandexMetrikaManagementAPI(session=session(), access_token=TOKEN, retries_if_server_error=0) as client:
        return await make(client)


async def counters(client):
    return [counter["id"] for counter in (await client.counters().get()).data()["counters"]]


async def goal(client):
    return (await client.goals(counter_id=COUNTER).post(data={"goal": GOAL})).data()["goal"]["id"]


async def no_goal(client):
    return (await client.goal(counter_id=COUNTER, goal_id=999999).get()).data()


async def log():
    async with YandexMetrikaLogsAPI(session=session(), access_token=TOKEN, default_url_params={"counter_id": COUNTER}) as client:
        query = {**PERIOD, "fields": ",".join(FIELDS), "source": "visits"}
        request = (await client.create().post(params=query)).data()["log_request"]["request_id"]
        part = await client.download(request_id=request, part_number=0).get()
        await client.clean(request_id=request).post()
        return len(part.data().splitlines()) - 1


drive(
    read=lambda: asyncio.run(asked(counters)),
    write=lambda: asyncio.run(asked(goal)),
    logs=lambda: asyncio.run(log()),
    missing=lambda: asyncio.run(asked(no_goal)),
)
