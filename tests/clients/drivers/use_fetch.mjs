import { BASE, TOKEN, driveHttp, target } from "./driver.mjs";

await driveHttp(async ({ method, path, query, document, form }) => {
  const headers = { Authorization: `OAuth ${TOKEN}` };
  if (document) headers["Content-Type"] = "application/json";
  const body = document ? JSON.stringify(document) : form;
  const response = await fetch(BASE + target(path, query), { method, headers, body });
  // It has no exception for a status.
  if (!response.ok) throw Object.assign(new Error(await response.text()), { name: `status ${response.status}` });
  return response.text();
});
