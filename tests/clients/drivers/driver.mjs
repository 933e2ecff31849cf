// What a client of Node.js is told to do; see driver.py.
import { readFileSync } from "node:fs";

export const BASE = process.env.CLIENT_BASE;
export const TOKEN = process.env.CLIENT_TOKEN;
const goal = JSON.parse(readFileSync("goal.json", "utf8"));
const path = "/management/v1/counter/101";
const period = { date1: "2026-11-01", date2: "2026-11-02", fields: "ym:s:visitID,ym:s:date", source: "visits" };

/** Runs the actions with `ask({method, path, query, document, form})`, which returns the text of the response; `form` is a `Form`. */
export async function driveHttp(ask, Form = FormData) {
  const json = async (request) => JSON.parse(await ask(request));
  const actions = {
    read: async () => (await json({ method: "GET", path: "/management/v1/counters" })).counters.map((one) => one.id),
    write: async () => (await json({ method: "POST", path: `${path}/goals`, document: { goal } })).goal.id,
    upload: async () => {
      const form = new Form();
      form.append("file", new Blob([readFileSync("upload.csv")], { type: "text/csv" }), "upload.csv");
      const query = { client_id_type: "CLIENT_ID" };
      return (await json({ method: "POST", path: `${path}/offline_conversions/upload`, query, form })).uploading.id;
    },
    logs: async () => {
      const { log_request } = await json({ method: "POST", path: `${path}/logrequests`, query: period });
      const one = `${path}/logrequest/${log_request.request_id}`;
      if ((await json({ method: "GET", path: one })).log_request.status !== "processed") throw new Error("not processed");
      const table = await ask({ method: "GET", path: `${one}/part/0/download` });
      await ask({ method: "POST", path: `${one}/clean` });
      return table.trimEnd().split("\n").length - 1;
    },
    missing: () => ask({ method: "GET", path: "/management/v1/nothing" }),
  };
  for (const name of process.env.CLIENT_ACTIONS.split(" ")) {
    try {
      console.log([name, "ok", await actions[name]()].join("\t"));
    } catch (error) {
      const cause = error.cause ? `${error.cause.code ?? error.cause}` : "";
      console.log([name, "error", error.name, `${error.code ?? ""} ${error.message} ${cause}`.replace(/\s+/g, " ").slice(0, 300)].join("\t"));
    }
  }
}

export const target = (path, query) => path + (query ? `?${new URLSearchParams(query)}` : "");
