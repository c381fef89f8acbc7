// The API reference: draws /openapi.json as groups of routes with parameters, schemas and a curl line.

import { Schemas } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const $ = (id) => document.getElementById(id);

const answer = await fetch("/openapi.json");
if (!answer.ok) {
  $("loading").textContent = `/openapi.json answered ${answer.status}.`;
  throw new Error(`no OpenAPI document: ${answer.status}`);
}
const openapi = await answer.json();
const schemas = new Schemas(openapi);
$("socket-address").textContent = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/`;
drawGroups(groupsOf(openapi));
$("filter").addEventListener("input", narrow);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== $("filter")) {
    event.preventDefault();
    $("filter").focus();
  }
});
followReading();
document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();

// ---- what is in the document

/** [{tag, operations}], in the document's order of tags. */
function groupsOf(openapi) {
  const groups = new Map((openapi["x-tagGroups"] ?? []).flatMap((group) => group.tags).map((tag) => [tag, []]));
  for (const { name } of openapi.tags ?? []) if (!groups.has(name)) groups.set(name, []);
  for (const [path, item] of Object.entries(openapi.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const operation = { path, method, ...item[method] };
      operation.parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map(
        (parameter) => schemas.resolve(parameter).schema,
      );
      operation.id = `${method}-${path}`.replace(/[^A-Za-z0-9]+/g, "-").replace(/-$/, "");
      const tag = operation.tags?.[0] ?? "Other";
      groups.set(tag, [...(groups.get(tag) ?? []), operation]);
    }
  }
  return [...groups].filter(([, operations]) => operations.length).map(([tag, operations]) => ({ tag, operations }));
}

function isSigned(operation) {
  return Boolean(operation.security?.length) || operation.parameters.some(isSignatureHeader);
}

function isSignatureHeader(parameter) {
  return parameter.in === "header" && /^x-(api-key|signature|timestamp|window)$/i.test(parameter.name);
}

// ---- drawing

function drawGroups(groups) {
  const routes = $("routes");
  routes.replaceChildren();
  const contents = $("contents");
  contents.append(
    ...[["introduction", "Introduction"], ["signing", "Signing a request"], ["streams", "WebSocket streams"]].map(
      ([id, text]) => make("a", { href: `#${id}`, class: "page" }, text),
    ),
  );
  for (const { tag, operations } of groups) {
    const group = make("section", { class: "group" }, make("h2", { id: `group-${tag}` }, tag));
    const list = make("div", { class: "links" }, make("b", {}, tag));
    for (const operation of operations) {
      group.append(drawOperation(operation));
      list.append(
        make(
          "a",
          { href: `#${operation.id}`, title: `${operation.method.toUpperCase()} ${operation.path}` },
          make("span", { class: `method ${operation.method}` }, operation.method === "delete" ? "del" : operation.method),
          make("span", {}, operation.summary ?? operation.path),
        ),
      );
    }
    routes.append(group);
    contents.append(list);
  }
}

function drawOperation(operation) {
  const query = operation.parameters.filter((parameter) => !isSignatureHeader(parameter));
  const body = Object.entries(operation.requestBody?.content ?? {})[0];
  const article = make(
    "article",
    { class: "card route", id: operation.id },
    make(
      "header",
      {},
      make("span", { class: `method ${operation.method}` }, operation.method),
      make("h3", {}, make("code", {}, ...breakable(operation.path))),
      isSigned(operation) ? make("span", { class: "signed" }, instruction(operation)) : null,
    ),
  );
  const inside = make("div", { class: "body" });
  if (operation.summary) inside.append(make("p", { class: "summary" }, operation.summary));
  if (operation.description && operation.description !== operation.summary) {
    inside.append(...operation.description.split(/\n{2,}/).map((text) => make("p", { class: "soft" }, text)));
  }
  if (query.length) inside.append(make("h4", {}, "Parameters"), fieldList(query.map(parameterField)));
  if (body) inside.append(make("h4", {}, "Body ", kind(body[1].schema)), fieldTree(body[1].schema));
  inside.append(make("h4", {}, "Answers"), ...Object.entries(operation.responses ?? {}).map(drawResponse));
  inside.append(make("h4", {}, "Try it"), copyable(curl(operation, query, body)));
  if (operation["x-instruction"]) inside.append(copyable(signing(operation, query, body)));
  article.append(inside);
  return article;
}

function instruction(operation) {
  const name = operation["x-instruction"];
  return name ? `signed: ${name}` : "signed";
}

/** A path that may break after its slashes. */
function breakable(path) {
  return path.split(/(?<=\/)/).flatMap((part, place) => (place ? [document.createElement("wbr"), part] : [part]));
}

function parameterField(parameter) {
  return {
    key: parameter.name,
    schema: parameter.schema,
    required: parameter.required,
    where: parameter.in,
    description: parameter.description,
    path: [],
  };
}

function drawResponse([status, response]) {
  const found = schemas.resolve(response).schema;
  const schema = Object.values(found.content ?? {})[0]?.schema;
  const label = [
    make("b", { class: /^2/.test(status) ? "status good" : "status" }, status),
    make("span", { class: "soft" }, found.description ?? ""),
    schema ? kind(schema) : null,
  ];
  if (!schema || !schemas.fields(schema).length) return make("p", { class: "answer" }, ...label);
  return make("details", { class: "answer" }, make("summary", {}, ...label), fieldTree(schema));
}

function kind(schema) {
  return make("code", { class: "kind" }, schemas.words(schema));
}

function fieldTree(schema) {
  const fields = schemas.fields(schema);
  return fields.length ? fieldList(fields) : kind(schema);
}

function fieldList(fields) {
  return make("ul", { class: "fields" }, ...fields.map(drawField));
}

function drawField(field) {
  const { schema: found } = schemas.resolve(field.schema);
  const row = make(
    "div",
    { class: "field" },
    make("code", { class: "key" }, field.option ? "one of" : field.key),
    kind(field.schema),
    field.where && field.where !== "query" ? make("span", { class: "note" }, `in ${field.where}`) : null,
    field.required ? make("span", { class: "note required" }, "required") : null,
    schemas.isNullable(field.schema) ? make("span", { class: "note" }, "or null") : null,
  );
  const item = make("li", {}, row);
  const text = field.description ?? field.schema?.description ?? found.description;
  if (text) item.append(make("p", { class: "soft" }, text));
  const values = schemas.values(field.schema);
  if (values) item.append(make("p", { class: "values" }, ...values.map((value) => make("code", {}, String(value)))));
  if (schemas.fields(field.schema, field.path).length) item.append(nested(field));
  return item;
}

/** Drawn when it is opened, so that a document that refers to itself ends. */
function nested(field) {
  const details = make("details", {}, make("summary", {}, "fields"));
  details.addEventListener(
    "toggle",
    () => details.append(fieldList(schemas.fields(field.schema, field.path))),
    { once: true },
  );
  return details;
}

// ---- the curl line

function curl(operation, query, body) {
  const parameters = query.filter((parameter) => parameter.in === "query" && parameter.required);
  let path = operation.path.replace(/\{(\w+)\}/g, (_whole, name) => {
    const parameter = query.find((one) => one.name === name);
    return encodeURIComponent(String(schemas.example(parameter?.schema, name)));
  });
  if (parameters.length) {
    const pairs = parameters.flatMap(({ name, schema }) =>
      [schemas.example(schema, name)].flat().map((value) => [name, String(value)]),
    );
    path += `?${new URLSearchParams(pairs)}`;
  }
  const lines = [`curl -s ${operation.method === "get" ? "" : `-X ${operation.method.toUpperCase()} `}'${location.origin}${path}'`];
  if (isSigned(operation)) {
    for (const header of ["X-API-Key", "X-Signature", "X-Timestamp", "X-Window"]) lines.push(`-H '${header}: …'`);
  }
  if (body) {
    lines.push("-H 'Content-Type: application/json'");
    lines.push(`-d '${JSON.stringify(schemas.example(body[1].schema))}'`);
  }
  return lines.join(" \\\n  ");
}

/** The command that signs the request and sends it. */
function signing(operation, query, body) {
  const parameters = query.filter((parameter) => parameter.in === "query" && parameter.required);
  const fields = parameters.map(({ name, schema }) => `${name}=${schemas.example(schema, name)}`);
  const example = body ? schemas.example(body[1].schema) : {};
  if (Array.isArray(example)) fields.push(`--body '${JSON.stringify(example)}'`);
  else fields.push(...Object.entries(example).map(([name, value]) => `${name}=${value}`));
  return [
    `satchel sign ${operation["x-instruction"]} ${fields.join(" ")}`.trimEnd(),
    `--key KEY.json --url ${location.origin} | tail -n 1 | sh`,
  ].join(" \\\n  ");
}

function copyable(text) {
  const code = make("pre", {}, text);
  if (!navigator.clipboard) return code;
  const button = make("button", { type: "button", class: "copy" }, "copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1_500);
  });
  return make("div", { class: "copyable" }, code, button);
}

// ---- finding one's way

function narrow() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const list of document.querySelectorAll(".links")) {
    for (const link of list.querySelectorAll("a")) {
      const text = `${link.title} ${link.textContent}`.toLowerCase();
      link.hidden = !words.every((word) => text.includes(word));
    }
    list.hidden = ![...list.querySelectorAll("a")].some((link) => !link.hidden);
  }
}

/** Mark the link of the route that is on the screen. */
function followReading() {
  const links = new Map([...document.querySelectorAll("#contents a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        document.querySelector("#contents [aria-current]")?.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-15% 0px -75% 0px" },
  );
  for (const id of links.keys()) {
    const target = document.getElementById(id);
    if (target) watcher.observe(target);
  }
}

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}
