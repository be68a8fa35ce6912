import { tidings as ductape } from "tidings";

await ductape.processor.messageBroker.publish({
env: "prd",
event: "sqsbroker:new-orders",
product_tag: "my_product",
session: {
token: "abc123xyz",
tag: "session-tag-1"
},
input: {
message: {
orderId: "12345",
status: "pending",
customer: {
name: "John Doe",
email: "john@example.com"
}
}
}
});
