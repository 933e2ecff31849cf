import pandas
from driver import BASE, TOKEN, drive

fields = {"Authorization": f"OAuth {TOKEN}"}


def read():
    return list(pandas.read_json(f"{BASE}/management/v1/counters", storage_options=fields)["counters"].map(lambda one: one["id"]))


def report():
    query = "ids=101&metrics=ym:s:visits&dimensions=ym:s:browser"
    return len(pandas.read_csv(f"{BASE}/stat/v1/data.csv?{query}", storage_options=fields))


def missing():
    return pandas.read_csv(f"{BASE}/management/v1/nothing", storage_options=fields)


drive(read=read, report=report, missing=missing)
