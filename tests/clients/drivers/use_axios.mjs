import axios from "axios";
import { BASE, TOKEN, driveHttp } from "./driver.mjs";

const headers = { Authorization: `OAuth ${TOKEN}` };
const place = BASE.startsWith("unix:") ? { baseURL: "http://localhost", socketPath: BASE.slice(5) } : { baseURL: BASE };
const metrica = axios.create({ ...place, headers, responseType: "text", transformResponse: (text) => text });

await driveHttp(async ({ method, path, query, document, form }) => {
  const response = await metrica.request({ method, url: path, params: query, data: document ?? form });
  return response.data;
});
