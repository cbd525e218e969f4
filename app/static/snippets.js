/** A request as somebody types it: for curl, and for Python. The key itself is never in it. */

const METHODS = {
  "/v1/score": "score",
  "/v1/next_token": "next_token",
  "/v1/decode": "decode",
  "/v1/audit": "audit",
};
/** Routes that the Python client has a method for. */

/**
 * @param {string} base the server's address, without a slash at its end
 * @param {string} path
 * @param {object} body
 * @param {boolean} hasKey whether the server wants one
 */
export function curlCommand(base, path, body, hasKey) {
  return [
    `curl -s ${quoted(base + path)}`,
    "-H 'Content-Type: application/json'",
    ...(hasKey ? ['-H "Authorization: Bearer $CHAINRULE_API_KEY"'] : []),
    `-d ${quoted(JSON.stringify(body))}`,
  ].join(" \\\n  ");
}

/** The same with the client that comes with the server; with httpx where that has no method. */
export function pythonProgram(base, path, body, hasKey) {
  const method = METHODS[path];
  return method && !body.stream
    ? withClient(base, method, body, hasKey)
    : withHttpx(base + path, body, hasKey);
}

function withClient(base, method, body, hasKey) {
  const key = hasKey ? ', api_key=os.environ["CHAINRULE_API_KEY"]' : "";
  const fields = Object.entries(body).map(([name, value]) => `        ${name}=${literal(value)},`);
  return [
    ...(hasKey ? ["import os", ""] : []),
    "from app.client import Client",
    "",
    `with Client(${literal(base)}${key}) as client:`,
    `    answer = client.${method}(`,
    ...fields,
    "    )",
    "print(answer.model_dump_json(indent=1))",
  ].join("\n");
}

function withHttpx(url, body, hasKey) {
  const key = '{"Authorization": f"Bearer {os.environ[\'CHAINRULE_API_KEY\']}"}';
  return [
    ...(hasKey ? ["import os", ""] : []),
    "import httpx",
    "",
    `body = ${literal(body)}`,
    `answer = httpx.post(${literal(url)}, json=body${hasKey ? `, headers=${key}` : ""}, timeout=60)`,
    "print(answer.raise_for_status().text)",
  ].join("\n");
}

/** In quotes for sh, in which nothing but the quote itself means anything. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A JSON value as Python writes it; strings are written alike in both. */
function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    const items = Object.entries(value).map(([name, one]) => `${literal(name)}: ${literal(one)}`);
    return `{${items.join(", ")}}`;
  }
  return JSON.stringify(value);
}
