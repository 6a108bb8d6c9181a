"""The policy model and the descriptors -> one OpenAPI 3.1 document of the REST API.

`document()` is pure: the same contracts give the same document, which is committed as gen/openapi/paymesh.json and served at
/openapi.json. Its parts: `schemas` (messages and enums), `rules` (buf.validate -> JSON Schema keywords), `samples`
(examples), `errors` (what each method can fail with), `operations` (one per REST route), `document` (all of it).
"""

from services.mesh.openapi.document import document

__all__ = ["document"]
