/**
 * The documentation of the routes: Swagger UI over the server's own OpenAPI document. It is what
 * FastAPI shows, so people know it; it sends requests with the key; and it needs no build.
 */

import { Api, BASE } from "./api.js";
import { askKey } from "./key_dialog.js";
import { Server } from "./server.js";

const SCHEME = "bearer";
/** As the document's securitySchemes name it. */

const server = document.getElementById("server");

let key;
const api = new Api(new Server(server), async (wasWrong) => (key = await askKey(wasWrong)));

try {
  const spec = await api.get("/openapi.json");
  const page = window.SwaggerUIBundle({
    spec: { ...spec, servers: [{ url: BASE || "/" }] },
    domNode: document.getElementById("routes"),
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    tryItOutEnabled: true,
    validatorUrl: null,
  });
  // The key that opened the document opens the routes.
  if (key !== undefined) page.preauthorizeApiKey(SCHEME, key);
} catch (error) {
  server.textContent = error.message;
  server.hidden = false;
}
