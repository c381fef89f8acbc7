// Schemas of the OpenAPI document as readable trees: references followed, unions listed, recursion cut.

export class Schemas {
  constructor(document) {
    this.document = document;
  }

  /** The schema a reference points to, with its name. */
  resolve(schema) {
    let name = "";
    let found = schema ?? {};
    for (let hops = 0; found.$ref && hops < 20; hops++) {
      name = found.$ref.split("/").at(-1);
      found = found.$ref
        .replace(/^#\//, "")
        .split("/")
        .reduce((at, key) => at?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], this.document) ?? {};
    }
    const inner = (found.allOf ?? []).filter((part) => Object.keys(part).length);
    if (!found.type && inner.length === 1) {
      const single = this.resolve(inner[0]);
      return { name: name || single.name, schema: { ...single.schema, ...rest(found) } };
    }
    return { name, schema: found };
  }

  /** In a few words: "string decimal", "array of Trade", "Bid | Ask". */
  words(schema) {
    const { name, schema: found } = this.resolve(schema);
    const options = this.#options(found);
    if (options) return options.map((option) => this.words(option)).join(" | ");
    if (found.enum) return name || (found.enum.length > MANY ? `one of ${found.enum.length}` : found.enum.join(" | "));
    if (found.const !== undefined) return JSON.stringify(found.const);
    if (found.type === "array" || found.items) return `array of ${found.items ? this.words(found.items) : "anything"}`;
    if (name) return name;
    if (found.additionalProperties && !found.properties) return `map of ${this.words(found.additionalProperties)}`;
    const type = [found.type ?? "anything"].flat().filter((kind) => kind !== "null").join(" | ");
    return found.format ? `${type} (${found.format})` : type;
  }

  /** What lies inside: the fields of an object, of an array's items, of each option of a union. */
  fields(schema, seen = []) {
    const { name, schema: found } = this.resolve(schema);
    if (name && seen.includes(name)) return [];
    const path = name ? [...seen, name] : seen;
    const parts = [found, ...(found.allOf ?? []).map((part) => this.resolve(part).schema)];
    const fields = parts.flatMap((part) =>
      Object.entries(part.properties ?? {}).map(([key, value]) => ({
        key,
        schema: value,
        required: (part.required ?? []).includes(key),
        path,
      })),
    );
    if (fields.length) return fields;
    if (found.items) return this.fields(found.items, path);
    if (found.additionalProperties) return this.fields(found.additionalProperties, path);
    const options = this.#options(found) ?? [];
    if (options.length === 1) return this.fields(options[0], path);
    return options.flatMap((option) => this.option(option, path));
  }

  option(schema, path) {
    return this.fields(schema, path).length ? [{ key: this.words(schema), schema, option: true, path }] : [];
  }

  /** The values it may take, where `words` does not list them. */
  values(schema) {
    const { name, schema: found } = this.resolve(schema);
    if (found.enum) return name || found.enum.length > MANY ? found.enum : null;
    const inner = found.items ? [found.items] : (this.#options(found) ?? []);
    return inner.map((one) => this.values(one)).find(Boolean) ?? null;
  }

  /** Whether null says something of its own. */
  isNullable(schema) {
    const { schema: found } = this.resolve(schema);
    const options = found.anyOf ?? found.oneOf ?? [];
    return [found.type].flat().includes("null") || options.some((option) => this.resolve(option).schema.type === "null");
  }

  /** The options of a union, null left out. */
  #options(found) {
    const options = found.anyOf ?? found.oneOf;
    return options?.filter((option) => this.resolve(option).schema.type !== "null");
  }

  /** A value to begin with, for the curl line. */
  example(schema, name = "", depth = 0) {
    const { schema: found } = this.resolve(schema);
    if (found.example !== undefined) return found.example;
    if (found.default !== undefined && found.default !== null) return found.default;
    if (EXAMPLES[name] !== undefined) return EXAMPLES[name];
    if (found.enum) return found.enum[0];
    if (found.const !== undefined) return found.const;
    const options = this.#options(found) ?? [];
    if (options.length) return this.example(options[0], name, depth);
    if (depth > 4) return null;
    const type = [found.type].flat().find((kind) => kind !== "null");
    if (type === "array" || found.items) return found.items ? [this.example(found.items, name, depth + 1)] : [];
    if (found.properties) {
      const required = found.required ?? [];
      const keys = Object.keys(found.properties).filter((key) => required.includes(key) || USUAL.includes(key));
      return Object.fromEntries(keys.map((key) => [key, this.example(found.properties[key], key, depth + 1)]));
    }
    if (type === "integer" || type === "number") return 1;
    if (type === "boolean") return true;
    return found.format === "decimal" ? "1" : "…";
  }
}

const MANY = 4;

const EXAMPLES = {
  symbol: "SOL_USDC",
  interval: "1m",
  startTime: Math.floor(Date.now() / 3_600_000 - 1) * 3_600,
  price: "100",
  quantity: "1",
  orderType: "Limit",
  side: "Bid",
  limit: 5,
  blockchain: "Solana",
};

/** Optional fields without which an example would say little. */
const USUAL = ["price", "quantity"];

function rest(schema) {
  const { allOf: _allOf, ...others } = schema;
  return others;
}
