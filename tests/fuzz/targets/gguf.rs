#![no_main]
libfuzzer_sys::fuzz_target!(
    init: palimpsest_fuzz::pass_over("/candle-core-"),
    |bytes: &[u8]| palimpsest_fuzz::gguf(bytes)
);
