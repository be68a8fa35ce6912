import { tidings as ductape } from "tidings";

await ductape.processor.messageBroker.subscribe({
env: "prd",
event: "sqsbroker:new-orders",
product_tag: "my_product",
session: {
token: "abc123xyz",
tag: "session-tag-1"
},
input: {
callback: async (message) => {
console.log("Received message:", message);
// Implement processing logic here (e.g., update order status)
}
}
});
