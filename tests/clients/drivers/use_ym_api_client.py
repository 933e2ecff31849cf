from driver import BASE, COUNTER, FIELDS, HARD_CODED, PERIOD, TOKEN, drive
from ym_api_client import YandexMetrikaClient

given = {} if BASE == HARD_CODED else {"base_url": BASE}
client = YandexMetrikaClient(TOKEN, max_retries=1, **given)


def read():
    return client.management.list_all_counter_ids()


def logs():
    return len(client.logs.download_visits(str(COUNTER), PERIOD["date1"], PERIOD["date2"], FIELDS))


def missing():
    return client.logs.get_request_info(str(COUNTER), 999999)


drive(read=read, logs=logs, missing=missing)
