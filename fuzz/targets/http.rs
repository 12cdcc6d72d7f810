#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sabot_fuzz_checks::http::check(bytes));
