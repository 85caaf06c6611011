"use strict";
const root = new URL(".", document.baseURI);
const shown = root.protocol === "http:" ? root.host + root.pathname : root.href;
for (const line of document.querySelectorAll("code.curl")) {
  line.textContent = line.textContent.replace("127.0.0.1:8000/", shown);
}
const nav = document.querySelector("nav details");
if (!matchMedia("(min-width: 64rem)").matches) nav.open = false;
nav.addEventListener("click", (event) => {
  if (event.target.closest("a") && !matchMedia("(min-width: 64rem)").matches) nav.open = false;
});
const token = document.querySelector("#token");
for (const form of document.forms) form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = form.querySelector("output");
  const query = new URLSearchParams();
  const headers = {};
  let path = form.dataset.path;
  for (const field of form.querySelectorAll("[data-in]")) {
    if (field.dataset.in === "path") path = path.replace(`{${field.name}}`, encodeURIComponent(field.value));
    else if (field.value && field.dataset.in === "header") headers[field.name] = field.value;
    else if (field.value) query.set(field.name, field.value);
  }
  const body = form.querySelector("textarea")?.value;
  if (body) headers["content-type"] = form.dataset.type;
  if (token.value) headers.authorization = `Bearer ${token.value}`;
  const url = new URL(`.${path}${query.size ? `?${query}` : ""}`, root);
  answer.textContent = "Waiting for the answer …";
  try {
    const got = await fetch(url, { method: form.dataset.method, headers, body: body || undefined });
    const text = await got.text();
    const told = ["etag", "location", "link", "retry-after"].filter((name) => got.headers.has(name));
    const head = [`HTTP ${got.status}`, ...told.map((name) => `${name}: ${got.headers.get(name)}`)].join("\n");
    const json = /json/.test(got.headers.get("content-type"));
    answer.textContent = `${head}\n\n${json ? JSON.stringify(JSON.parse(text), null, 2) : text}`.trim();
  } catch (error) {
    answer.textContent = `No answer: ${error.message}`;
  }
});
