// The platforms that have a package of their own, `@tidings/<name>`, and which one this is.

export const PLATFORMS = {
  "darwin-arm64": { os: ["darwin"], cpu: ["arm64"] },
  "darwin-x64": { os: ["darwin"], cpu: ["x64"] },
  "linux-arm64-gnu": { os: ["linux"], cpu: ["arm64"], libc: ["glibc"] },
  "linux-arm64-musl": { os: ["linux"], cpu: ["arm64"], libc: ["musl"] },
  "linux-x64-gnu": { os: ["linux"], cpu: ["x64"], libc: ["glibc"] },
  "linux-x64-musl": { os: ["linux"], cpu: ["x64"], libc: ["musl"] },
  "win32-x64-msvc": { os: ["win32"], cpu: ["x64"] },
};

const glibc = () => process.report.getReport().header.glibcVersionRuntime !== undefined;

/** The name of the platform that this runs on. */
export function platform() {
  const suffix = { linux: () => (glibc() ? "-gnu" : "-musl"), win32: () => "-msvc" }[process.platform]?.() ?? "";
  return `${process.platform}-${process.arch}${suffix}`;
}
