#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::testkit::fuzz::play("event", bytes));
