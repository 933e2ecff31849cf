from driver import BASE, COUNTER, GOAL, HARD_CODED, TOKEN, drive
from yametrikapy.core import Metrika

client = Metrika("client", token=TOKEN)
if BASE != HARD_CODED:
    client.HOST = f"{BASE}/"


def read():
    return [counter["id"] for counter in client.counters().counters]


def write():
    return client.add_goal(COUNTER, GOAL["name"], GOAL["type"], conditions=GOAL["conditions"]).goal["id"]


def upload():
    return client.upload_offline_conversions(COUNTER, open("upload.csv"), "CLIENT_ID").uploading["id"]


def missing():
    return client.goal(COUNTER, 999999)


drive(read=read, write=write, upload=upload, missing=missing)
