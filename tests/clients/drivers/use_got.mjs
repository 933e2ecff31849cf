import got from "got";
import { BASE, TOKEN, driveHttp, target } from "./driver.mjs";

const headers = { Authorization: `OAuth ${TOKEN}` };
const socket = BASE.startsWith("unix:");
const metrica = got.extend({ headers, enableUnixSockets: socket, retry: { limit: 0 } });

await driveHttp(async ({ method, path, query, document, form }) => {
  const url = (socket ? `${BASE}:` : BASE) + target(path, query);
  const content = document ? { json: document } : form ? { body: form } : {};
  return (await metrica(url, { method, ...content })).body;
});
