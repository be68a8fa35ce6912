// Announces that Ada has registered.

import { Publisher } from "tidings";

const publisher = new Publisher();
const receipt = await publisher.publish("user.registered", { userId: 7, name: "Ada" }, { domainObjectId: "7" });

// The broker has it durably. A receipt also tells whether any subscription wanted it.
console.log(`published user.registered, wanted by ${receipt.routed ? "somebody" : "nobody yet"}`);
await publisher.close();
