// What a bundler for browsers finds in place of the package: there is no broker to be reached from there.

import { failure } from "./error";

throw failure("BROWSER_NOT_SUPPORTED", "tidings runs in Node, not in a browser", {
  remedy: "publish from a server, and let the browser call that",
});
