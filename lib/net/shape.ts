/**
 * What an answer must look like before anybody reads it: a description as data, checked by one small function. (A schema
 * library would cost the command line more start-up time than everything else it does.)
 */

export type Shape =
  | "string"
  | "number"
  | "boolean"
  | "scalars"
  | { readonly nullable: Shape }
  | { readonly list: Shape }
  | { readonly oneOf: readonly string[] }
  | { readonly object: Readonly<Record<string, Shape>> };

/** The description of T: the compiler sees to it that no field is forgotten and none is made up. */
export function objectShape<T>(fields: Readonly<Record<keyof T & string, Shape>>): Shape {
  return { object: fields };
}

export function listOf(shape: Shape): Shape {
  return { list: shape };
}

export function nullable(shape: Shape): Shape {
  return { nullable: shape };
}

export function oneOf(...values: readonly string[]): Shape {
  return { oneOf: values };
}

/** Unknown fields are let pass, so that an older program understands a newer daemon. */
export function misfit(value: unknown, shape: Shape, path = "answer"): string | undefined {
  if (typeof shape === "string") {
    return misfitOfScalar(value, shape, path);
  }
  if ("nullable" in shape) {
    return value === null ? undefined : misfit(value, shape.nullable, path);
  }
  if ("oneOf" in shape) {
    return typeof value === "string" && shape.oneOf.includes(value)
      ? undefined
      : `${path} is not one of ${shape.oneOf.join(", ")}`;
  }
  if ("list" in shape) {
    if (!Array.isArray(value)) {
      return `${path} is not a list`;
    }
    return firstMisfit(
      value.map((item: unknown, index) => [`${path}[${index}]`, item, shape.list] as const),
    );
  }
  if (!isRecord(value)) {
    return `${path} is not an object`;
  }
  return firstMisfit(
    Object.entries(shape.object).map(
      ([name, inner]) => [`${path}.${name}`, value[name], inner] as const,
    ),
  );
}

function misfitOfScalar(
  value: unknown,
  kind: "string" | "number" | "boolean" | "scalars",
  path: string,
): string | undefined {
  if (kind === "scalars") {
    const isFine = isRecord(value) && Object.values(value).every((item) => isScalar(item));
    return isFine ? undefined : `${path} is not a table of plain values`;
  }
  // JSON has no NaN, but 1e999 is read as Infinity.
  const isFine = typeof value === kind && (kind !== "number" || Number.isFinite(value));
  return isFine ? undefined : `${path} is not a ${kind}`;
}

function firstMisfit(parts: readonly (readonly [string, unknown, Shape])[]): string | undefined {
  for (const [path, value, shape] of parts) {
    const trouble = misfit(value, shape, path);
    if (trouble !== undefined) {
      return trouble;
    }
  }
  return undefined;
}

function isScalar(value: unknown): boolean {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean";
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
