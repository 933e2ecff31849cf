from driver import BASE, COUNTER, FIELDS, GOAL, HARD_CODED, PERIOD, TOKEN, drive
from tapi_yandex_metrika import YandexMetrikaLogsapi, YandexMetrikaManagement
from tapi_yandex_metrika import tapi_yandex_metrika as adapters

if BASE != HARD_CODED:
    adapters.YandexMetrikaClientAdapterAbstract.get_api_root = lambda self, api_params, resource_name: f"{BASE}/"

client = YandexMetrikaManagement(access_token=TOKEN, retries_if_server_error=0)


def read():
    return [counter["id"] for counter in client.counters().get().data["counters"]]


def write():
    return client.goals(counterId=COUNTER).post(data={"goal": GOAL}).data["goal"]["id"]


def logs():
    query = {**PERIOD, "fields": ",".join(FIELDS), "source": "visits"}
    logs = YandexMetrikaLogsapi(access_token=TOKEN, default_url_params={"counterId": COUNTER}, wait_report=True)
    request = logs.create().post(params=query).data["log_request"]["request_id"]
    rows = sum(1 for _ in logs.download(requestId=request).get()().iter_lines(max_parts=1))
    logs.clean(requestId=request).post()
    return rows


def missing():
    return client.goal(counterId=COUNTER, goalId=999999).get().data


drive(read=read, write=write, logs=logs, missing=missing)
