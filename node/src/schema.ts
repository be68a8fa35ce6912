import type { DomainEvent } from "./event";
import { DeadLetter } from "./outcome";

/** A schema by the Standard Schema convention (https://standardschema.dev): zod, valibot, arktype and others. */
export interface StandardSchema<Output = unknown> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined;
  };
}

/** What a schema says of a value. */
export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };

/** One thing that is wrong with a value. */
export interface SchemaIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** Reason of dead letters whose data do not fit the schema. */
export const INVALID_DATA = "invalid-data";

/** The event with its data as the schema gives them. What does not fit is a dead letter, never retried. */
export async function validated<T>(schema: StandardSchema<T>, event: DomainEvent): Promise<DomainEvent<T>> {
  const result = await schema["~standard"].validate(event.data);
  if (result.issues !== undefined) throw new DeadLetter(INVALID_DATA, result.issues.map(describe).join("; "));
  return event.withData(result.value);
}

function describe(issue: SchemaIssue): string {
  const path = (issue.path ?? []).map((step) => String(typeof step === "object" ? step.key : step)).join(".");
  return path === "" ? issue.message : `${path}: ${issue.message}`;
}
