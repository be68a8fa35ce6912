"""Announces that Ada has registered."""

from tidings import Publisher

with Publisher() as publisher:
    receipt = publisher.publish("user.registered", {"user_id": 7, "name": "Ada"}, domain_object_id="7")

# The broker has it durably. A receipt also tells whether any subscription wanted it.
wanted = "somebody" if receipt.routed else "nobody yet"
print(f"published user.registered, wanted by {wanted}")
