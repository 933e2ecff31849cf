from driver import COUNTER, FIELDS, PERIOD, TOKEN, drive
from yandex_metrika_logs_api.client import YandexMetrika

client = YandexMetrika(TOKEN, counter_id=COUNTER)
dates = PERIOD["date1"], PERIOD["date2"]


def read():
    return client.log_evaluate(*dates, FIELDS, "visits")["log_request_evaluation"]["possible"]


def logs():
    request = str(client.log_request(*dates, FIELDS, "visits")["log_request"]["request_id"])
    assert client.log_status(request)["log_request"]["status"] == "processed"
    table = client.log_download(request, 0)
    client.log_clean(request)
    return len(table.splitlines()) - 1


def missing():
    return client.log_status("999999")


drive(read=read, logs=logs, missing=missing)
