import { readFileSync } from "node:fs";
import { FormData, Pool, ProxyAgent, request } from "undici";
import { BASE, TOKEN, driveHttp, target } from "./driver.mjs";

const headers = { Authorization: `OAuth ${TOKEN}` };
const { HTTPS_PROXY, CA } = process.env;
let origin = BASE;
let dispatcher;
if (BASE.startsWith("unix:")) {
  origin = "http://localhost";
  dispatcher = new Pool(origin, { socketPath: BASE.slice(5) });
} else if (HTTPS_PROXY) {
  dispatcher = new ProxyAgent({ uri: HTTPS_PROXY, requestTls: { ca: readFileSync(CA) } });
}

await driveHttp(async ({ method, path, query, document, form }) => {
  const json = document ? { "Content-Type": "application/json" } : {};
  const body = document ? JSON.stringify(document) : form;
  const response = await request(origin + target(path, query), { method, headers: { ...headers, ...json }, body, dispatcher });
  const text = await response.body.text();
  // It has no exception for a status.
  if (response.statusCode >= 400) throw Object.assign(new Error(text), { name: `status ${response.statusCode}` });
  return text;
}, FormData);
await dispatcher?.close();
