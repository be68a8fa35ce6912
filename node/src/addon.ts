// Finds the addon of this platform: in the package itself (a checkout), or in the package of the platform.

import { join } from "node:path";
import { failure } from "./error";

/** What Node calls the platforms that have a package, and the packages' names; Linux has one for each C library. */
const PACKAGES: Record<string, readonly string[]> = {
  "darwin-arm64": ["darwin-arm64"],
  "darwin-x64": ["darwin-x64"],
  "linux-arm64": ["linux-arm64-gnu", "linux-arm64-musl"],
  "linux-x64": ["linux-x64-gnu", "linux-x64-musl"],
  "win32-x64": ["win32-x64-msvc"],
};

/** Loads it, or says which package is missing. */
export function loadAddon(): unknown {
  const here = `${process.platform}-${process.arch}`;
  const names = PACKAGES[here] ?? [];
  const failures = new Map<string, unknown>();
  // Where both of Linux's are installed, the other C library's cannot be loaded, and this one's can.
  for (const name of names) {
    for (const place of [join(__dirname, "..", "prebuilds", name, "tidings.node"), `@tidings/${name}`]) {
      try {
        return require(place);
      } catch (error) {
        if ((error as { code?: string }).code !== "MODULE_NOT_FOUND") failures.set(name, error);
      }
    }
  }
  throw missing(here, names, failures);
}

function missing(here: string, names: readonly string[], failures: Map<string, unknown>): Error {
  const [first, musl] = names;
  if (first === undefined) {
    const remedy = `run it on one of ${Object.keys(PACKAGES).join(", ")}`;
    return failure("BROKER_SERVICE_LOAD_FAILED", `tidings has no addon for ${here}`, { remedy });
  }
  const name = musl === undefined || glibc() ? first : musl;
  const cause = failures.get(name);
  const what = cause === undefined ? "is not installed" : "cannot be loaded";
  return failure("BROKER_SERVICE_LOAD_FAILED", `the addon for this platform, @tidings/${name}, ${what}`, {
    remedy: "install without --omit=optional, and with a lock file that was not made for another platform only",
    cause,
  });
}

function glibc(): boolean {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return report?.header?.glibcVersionRuntime !== undefined;
}
