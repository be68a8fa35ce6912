//! Deliveries in the hands of JavaScript, by number.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use napi::bindgen_prelude::{Array, Env, Null};
use parking_lot::Mutex;
use tidings::{Delivery, DomainEvent};

use crate::convert::header_table;

/// Fields of one event in a batch; `node/src/delivery.ts` reads them in this order.
const FIELDS: u32 = 8;

/// The deliveries that handlers have, until they are settled. Dropping it releases them.
#[derive(Default)]
pub(crate) struct Hand {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    deliveries: HashMap<u32, Delivery>,
    last: u32,
}

impl Hand {
    fn hold(&self, delivery: Delivery) -> u32 {
        let mut held = self.held.lock();
        // Numbers come round after four thousand million events; one that is still in use is passed over.
        loop {
            held.last = held.last.wrapping_add(1);
            let number = held.last;
            if let Entry::Vacant(free) = held.deliveries.entry(number) {
                free.insert(delivery);
                return number;
            }
        }
    }

    /// Takes out what is to be settled. Numbers that are not there were released meanwhile.
    pub(crate) fn take(&self, numbers: &[u32]) -> Vec<Option<Delivery>> {
        let mut held = self.held.lock();
        numbers.iter().map(|number| held.deliveries.remove(number)).collect()
    }

    /// Everything that is held.
    pub(crate) fn empty(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.held.lock().deliveries).into_values().collect()
    }
}

/// A batch as one flat array: number, routing key, id, time, object id, retries, headers, data, number, …
pub(crate) fn events<'env>(env: &'env Env, hand: &Hand, deliveries: Vec<Delivery>) -> napi::Result<Array<'env>> {
    let length = u32::try_from(deliveries.len()).unwrap_or(0) * FIELDS;
    let mut array = env.create_array(length)?;
    for (at, delivery) in (0u32..).step_by(FIELDS as usize).zip(deliveries) {
        fill(env, &mut array, at + 1, delivery.event())?;
        array.set(at, hand.hold(delivery))?;
    }
    Ok(array)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what is made of it lives as long as the reference")]
fn fill(env: &Env, array: &mut Array<'_>, at: u32, event: &DomainEvent) -> napi::Result<()> {
    array.set(at, event.routing_key())?;
    array.set(at + 1, event.id())?;
    array.set(at + 2, event.timestamp().as_secs_f64())?;
    match event.domain_object_id() {
        Some(id) => array.set(at + 3, id)?,
        None => array.set(at + 3, Null)?,
    }
    array.set(at + 4, event.retries())?;
    if event.headers().is_empty() {
        array.set(at + 5, Null)?;
    } else {
        array.set(at + 5, header_table(env, event.headers())?)?;
    }
    array.set(at + 6, event.data_json())
}
